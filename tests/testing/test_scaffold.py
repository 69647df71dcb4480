"""What `sparsebench new` makes is a right plugin from the start, and its tests can fail."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from sparsebench.errors import UsageError
from sparsebench.testing.scaffold import KINDS, TEMPLATE, new_plugin


def run_pytest(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--no-header", "--tb=no", *options]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize("kind", KINDS)
def test_its_tests_pass_unchanged(kind: str, tmp_path: Path) -> None:
    made = new_plugin(kind, "quick-product", tmp_path)
    assert made == tmp_path / "quick-product"
    done = run_pytest(made)
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout
    assert ("skipped" in done.stdout) == (kind == "method")  # a schedule on the way to N:M groups cannot be


def test_its_tests_fail_with_one_sign_changed(tmp_path: Path) -> None:
    made = new_plugin("backend", "quick-product", tmp_path)
    kernel = made / "quick_product" / "_kernel.py"
    kernel.write_text(kernel.read_text().replace("output + bias", "output - bias"))
    done = run_pytest(made, "-k", "bias")
    assert done.returncode == 1, done.stdout
    assert "with-bias" in done.stdout


@pytest.mark.parametrize(
    ("right", "wrong", "what"),
    [
        ("ctx.select(scores, sparsity)", "ctx.select(scores, sparsity / 2)", "budget"),
        ("ctx.sparsity * i / count", "ctx.sparsity * i / (count + 1)", "final-budget"),
    ],
)
def test_its_tests_fail_with_a_fault_in_the_method(right: str, wrong: str, what: str, tmp_path: Path) -> None:
    made = new_plugin("method", "quick-method", tmp_path)
    method = made / "quick_method" / "_method.py"
    assert right in method.read_text()
    method.write_text(method.read_text().replace(right, wrong))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "nesterov"]
    done = subprocess.run(command, cwd=made, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1, done.stdout
    assert f"invariant '{what}'" in done.stdout


def test_the_package_announces_itself(tmp_path: Path) -> None:
    made = new_plugin("backend", "quick-product", tmp_path)
    project = tomllib.loads((made / "pyproject.toml").read_text())
    assert project["project"]["name"] == "quick-product"
    assert project["project"]["entry-points"]["sparsebench"] == {"quick-product": "quick_product"}
    assert (made / project["tool"]["setuptools"]["packages"][0] / "__init__.py").is_file()


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_left_to_fill_in(kind: str, tmp_path: Path) -> None:
    made = new_plugin(kind, "quick-product", tmp_path)
    texts = [path.read_text() for path in made.rglob("*") if path.is_file()]
    assert len(texts) == len(list((TEMPLATE / kind).iterdir())) == 5
    assert not any("{name}" in text or "{package}" in text for text in texts)


@pytest.mark.parametrize("name", ["My-Kernel", "9lives", "a--b", "class", "", "../up", "json", "torch"])
def test_names_that_cannot_be(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="new backend"):
        new_plugin("backend", name, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    new_plugin("backend", "quick-product", tmp_path)
    with pytest.raises(UsageError, match="exists"):
        new_plugin("backend", "quick-product", tmp_path)
