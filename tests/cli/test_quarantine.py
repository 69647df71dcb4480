"""Every verb that looks for plugins says on stderr which it left out, and stops at one where it is to be strict."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sparsebench.harness import checking, session

Call = Callable[..., Any]
TINY = """
from sparsebench.plugin import BackendSpec, hookimpl

@hookimpl
def sparsebench_backends():
    return [BackendSpec(name="cython", summary="one", load="a:B", ops=("linear",), requires=("no_such_thing",))]
"""


@pytest.fixture
def broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An installed plugin whose import fails; its module name."""
    site = tmp_path / "site"
    info = site / "luckless-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "luckless.py").write_text("raise RuntimeError('no luck')")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: luckless\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[sparsebench]\nluckless = luckless\n")
    monkeypatch.setenv("PYTHONPATH", str(site))
    monkeypatch.syspath_prepend(site)
    return "luckless"


@pytest.fixture
def tiny(tmp_path: Path) -> str:
    """A plugin file that takes the name of a built-in backend."""
    path = tmp_path / "tiny.py"
    path.write_text(TINY)
    return str(path)


@pytest.fixture
def no_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is asked or computed: it is about what is said before."""
    monkeypatch.setattr(session, "probe", lambda *_: None)
    monkeypatch.setattr(
        checking, "check_backends", lambda names, *_: iter([checking.Checked(n, "all", "skipped", "") for n in names])
    )


COMMANDS = (
    ("list", "backends", "--plugin"),
    ("list", "plugins", "--json", "--plugin"),
    ("run", "suite-smoke", "--dry-run", "--plugin"),
    ("check",),
)


@pytest.mark.usefixtures("no_workers")
@pytest.mark.parametrize("args", COMMANDS, ids=" ".join)
def test_what_is_left_out_is_said(call: Call, broken: str, tiny: str, args: tuple[str, ...]) -> None:
    code, out, err = call(*args, tiny)
    assert code == 0, err
    assert f"sparsebench: plugin {broken} is left out: import failed: RuntimeError: no luck\n" in err
    note = f"plugin {tiny}: its backend is listed as 'tiny:cython': 'cython' alone is sparsebench's own\n"
    assert f"sparsebench: {note}" in err
    assert err.count("\n") == 2
    assert "tiny:cython" in out or args[1:2] == ("plugins",)


@pytest.mark.usefixtures("no_workers", "broken")
@pytest.mark.parametrize("args", COMMANDS, ids=" ".join)
def test_strict_stops(call: Call, tiny: str, args: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPARSEBENCH_STRICT_PLUGINS", "1")
    code, out, err = call(*args, tiny)
    assert (code, out, err) == (2, "", "sparsebench: plugin luckless: import failed: RuntimeError: no luck\n")


def test_a_short_timeout_is_not_for_imports(call: Call, tiny: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []

    def load(files: Any, seconds: float) -> Any:
        asked.append(seconds)
        raise KeyboardInterrupt

    monkeypatch.setattr(session, "load_registry", load)
    for timeout in ("1", "300"):
        assert call("run", "suite-smoke", "--plugin", tiny, "--timeout", timeout).code == 130
    assert asked == [20.0, 300.0]
