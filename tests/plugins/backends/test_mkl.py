"""oneMKL's products against dense float64, from every library that is here; and its life in the process."""

import gc
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import pytest
import torch

from sparsebench.builtin.backends import _mkl, _mkl_library
from sparsebench.builtin.backends._mkl import Mkl
from sparsebench.errors import UnsupportedError
from sparsebench.plugin import Problem, SparseWeight

HERE = [name for name in ("pypi", "torch") if _mkl_library.find_library(name)]
LINEAR = Problem(op="linear", out_features=8, in_features=16, batch=4)
WEIGHT = SparseWeight.from_dense(torch.ones(8, 16))


@pytest.mark.parametrize("library", HERE)
def test_right(check, problem, library) -> None:
    check(Mkl(library), problem)
    check(Mkl(library), replace(problem, dtype="float64"))


@pytest.mark.parametrize("library", HERE)
def test_rules(rule, library) -> None:
    rule(Mkl(library))


@pytest.mark.parametrize("library", HERE)
def test_handles_are_freed_with_the_kernel(monkeypatch, library) -> None:
    freed = []
    found = _mkl_library.find_library(library)
    destroy = found.destroy
    monkeypatch.setattr(found, "destroy", lambda handle: (freed.append(handle), destroy(handle)))
    kernel = Mkl(library).bind(LINEAR, WEIGHT)
    assert len(freed) == 0
    del kernel
    gc.collect()
    assert len(freed) == 2


@pytest.mark.parametrize("library", HERE)
def test_the_note_names_the_library(library) -> None:
    assert Mkl(library).bind(LINEAR, WEIGHT).note.startswith(f"oneMKL of {library}")


@pytest.mark.parametrize("library", HERE)
def test_a_failing_call_is_an_error_that_names_it(library) -> None:
    found = _mkl_library.find_library(library)
    none = torch.zeros(2, dtype=torch.int32)
    with pytest.raises(UnsupportedError, match="create_csr"):
        found.create(none, none, torch.zeros(2), (-1, -1), 1)


def test_no_second_openmp_runtime_comes_in() -> None:
    assert "libiomp5" not in Path("/proc/self/maps").read_text()


def test_nothing_to_load_is_said_and_not_raised(monkeypatch) -> None:
    monkeypatch.setattr(_mkl, "find_library", lambda choice: None)
    reason = Mkl().unsupported(LINEAR)
    assert reason and "pip install mkl" in reason
    with pytest.raises(UnsupportedError):
        Mkl().bind(LINEAR, WEIGHT)


def test_a_missing_distribution_has_no_path(monkeypatch) -> None:
    def missing(name: str):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "files", missing)
    assert _mkl_library._path_of("pypi") is None
