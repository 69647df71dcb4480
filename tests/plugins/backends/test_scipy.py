"""SciPy's CSR products against dense float64."""

from dataclasses import replace

from sparsebench.builtin.backends._scipy import Scipy


def test_right(check, problem) -> None:
    check(Scipy(), problem)
    check(Scipy(), replace(problem, dtype="float64"))


def test_rules(rule) -> None:
    rule(Scipy())
