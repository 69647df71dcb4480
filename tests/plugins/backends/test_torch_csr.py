"""torch's CSR products against dense float64."""

from dataclasses import replace

from sparsebench.builtin.backends._torch_csr import TorchCsr


def test_right(check, problem) -> None:
    check(TorchCsr(), problem)
    check(TorchCsr(), replace(problem, dtype="float64"))


def test_rules(rule) -> None:
    rule(TorchCsr())
