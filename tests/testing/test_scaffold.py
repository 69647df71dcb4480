"""What `sparsebench new backend` makes is a right plugin from the start, and its tests can fail."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from sparsebench.errors import UsageError
from sparsebench.testing.scaffold import PLACES, TEMPLATE, new_backend


def run_pytest(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--no-header", "--tb=no", *options]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)


def test_its_tests_pass_unchanged(tmp_path: Path) -> None:
    made = new_backend("quick-product", tmp_path)
    assert made == tmp_path / "quick-product"
    done = run_pytest(made)
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout
    assert "skipped" not in done.stdout


def test_its_tests_fail_with_one_sign_changed(tmp_path: Path) -> None:
    made = new_backend("quick-product", tmp_path)
    kernel = made / "quick_product" / "_kernel.py"
    kernel.write_text(kernel.read_text().replace("output + bias", "output - bias"))
    done = run_pytest(made, "-k", "bias")
    assert done.returncode == 1, done.stdout
    assert "with-bias" in done.stdout


def test_the_package_announces_itself(tmp_path: Path) -> None:
    made = new_backend("quick-product", tmp_path)
    project = tomllib.loads((made / "pyproject.toml").read_text())
    assert project["project"]["name"] == "quick-product"
    assert project["project"]["entry-points"]["sparsebench"] == {"quick-product": "quick_product"}
    assert (made / project["tool"]["setuptools"]["packages"][0] / "__init__.py").is_file()


def test_nothing_is_left_to_fill_in(tmp_path: Path) -> None:
    made = new_backend("quick-product", tmp_path)
    texts = [path.read_text() for path in made.rglob("*") if path.is_file()]
    assert len(texts) == len(PLACES) == len(list(TEMPLATE.iterdir()))
    assert not any("{name}" in text or "{package}" in text for text in texts)


@pytest.mark.parametrize("name", ["My-Kernel", "9lives", "a--b", "class", "", "../up", "json", "torch"])
def test_names_that_cannot_be(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="new backend"):
        new_backend(name, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    new_backend("quick-product", tmp_path)
    with pytest.raises(UsageError, match="exists"):
        new_backend("quick-product", tmp_path)
