"""Makes a package with a plugin from the templates beside this file: `sparsebench new backend|method NAME`."""

from __future__ import annotations

import importlib.util
import keyword
import re
import sysconfig
from pathlib import Path

from sparsebench.errors import UsageError

TEMPLATE = Path(__file__).with_name("template")
PLACES = {
    "pyproject.toml.tmpl": "pyproject.toml",
    "README.md.tmpl": "README.md",
    "init.py.tmpl": "{package}/__init__.py",
    "kernel.py.tmpl": "{package}/_kernel.py",
    "method.py.tmpl": "{package}/_method.py",
    "test.py.tmpl": "tests/test_{package}.py",
}
KINDS = ("backend", "method")
_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


def new_plugin(kind: str, name: str, folder: Path) -> Path:
    """The new folder `folder`/`name` for a plugin of one of `KINDS`; raises `UsageError` before anything is written."""
    package, target = name.replace("-", "_"), folder / name
    if not _NAME.fullmatch(name) or keyword.iskeyword(package):
        raise UsageError(f"new {kind} {name!r}: use lower-case letters, digits and single dashes, as in my-kernel")
    if target.exists():
        raise UsageError(f"new {kind} {name!r}: {target} exists; choose another name or --folder")
    if _taken(package):
        raise UsageError(f"new {kind} {name!r}: Python already has a module {package!r}; choose another name")
    for template in sorted((TEMPLATE / kind).iterdir()):
        path = target / _filled(PLACES[template.name], name, package)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(_filled(template.read_text(), name, package))
    return target


def _taken(package: str) -> bool:
    """Whether Python or an installed package has a module of this name.

    A folder without `__init__` is none: a package goes before it. A file of the user's own, such as the plugin that
    becomes this package, is none either: an editable install has its checkout's surroundings on the path.
    """
    try:
        spec = importlib.util.find_spec(package)
    except ValueError:  # a module that is loaded and does not say where from
        return True
    if spec is None or spec.origin is None:
        return False
    installed = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    return not Path(spec.origin).is_absolute() or any(Path(spec.origin).is_relative_to(path) for path in installed)


def _filled(text: str, name: str, package: str) -> str:
    return text.replace("{name}", name).replace("{package}", package)
