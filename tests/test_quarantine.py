"""Which name a plugin's things get, what its hash covers, and what makes it be left out without stopping the rest."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sparsebench import discovery, registry
from sparsebench.discovery import Source
from sparsebench.errors import PluginError, UsageError
from sparsebench.registry import load_registry

Write = Callable[..., Path]
Install = Callable[..., Path]
HOOK = """
from sparsebench.plugin import BackendSpec, hookimpl

@hookimpl
def sparsebench_backends():
    return [BackendSpec(name=name, summary="one", load=f"{{__name__}}:{{load}}", ops=("linear",), requires={requires!r})
            for name, load in {names!r}]
"""

INTERRUPTED_HOOK = """
from sparsebench.plugin import hookimpl

@hookimpl
def sparsebench_backends():
    raise KeyboardInterrupt
"""


def hook(*names: str, requires: tuple[str, ...] = ()) -> str:
    """The text of a plugin module that offers these backends, each with a class of its own."""
    return HOOK.format(names=[(name, f"Class{i}") for i, name in enumerate(names)], requires=requires)


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def make(place: str, text: str) -> Path:
        path = tmp_path / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    return make


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Puts a distribution with one entry point where Python finds it, here and in the processes that are started."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.setenv("PYTHONPATH", str(site))
    monkeypatch.syspath_prepend(site)

    def make(name: str, entry: str, files: dict[str, str]) -> Path:
        for place, text in files.items():
            (site / place).parent.mkdir(parents=True, exist_ok=True)
            (site / place).write_text(text)
        info = site / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[sparsebench]\n{name} = {entry}\n")
        return site

    return make


def test_two_specs_of_one_name_quarantine_their_module_alone(write: Write) -> None:
    found = load_registry([write("twice.py", hook("same", "same")), write("good.py", hook("good"))])
    (bad,) = [p for p in found.plugins if p.error]
    assert bad.name.endswith("twice.py")
    assert "backend 'same' twice" in bad.error
    assert ":Class0" in bad.error and ":Class1" in bad.error, "both are named"
    assert "good" in found.backends and "same" not in found.backends


def test_a_file_that_is_named_twice_counts_once(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write("mine.py", hook("mine"))
    monkeypatch.chdir(path.parent)
    found = load_registry([path, "mine.py", path])
    assert "mine" in found.backends
    assert sum(p.name == str(path) for p in found.plugins) == 1


def test_a_built_in_keeps_its_short_name(write: Write) -> None:
    path = write("grabber.py", hook("torch-dense"))
    found = load_registry([path])
    assert found.find("backends", "torch-dense")[0].plugin.distribution == "sparsebench"
    assert found.backends["torch-dense"].note == ""
    entry, _ = found.find("backends", "grabber:torch-dense")
    assert entry.source.file == str(path)
    assert "sparsebench's own" in entry.note


def test_a_file_that_calls_itself_sparsebench_is_a_foreign_one(write: Write) -> None:
    found = load_registry([write("sparsebench.py", hook("torch-dense"))])
    assert found.backends["torch-dense"].source.file == ""
    assert found.backends["sparsebench:torch-dense"].source.file


def test_two_plugins_with_one_name_are_both_there_and_the_short_name_is_an_error(write: Write) -> None:
    found = load_registry([write("one.py", hook("mine")), write("two.py", hook("mine"))])
    assert {"one:mine", "two:mine"} <= found.backends.keys()
    assert "any of 2" in found.backends["one:mine"].note
    with pytest.raises(UsageError, match=r"one:mine or two:mine"):
        found.find("backends", "mine")


def test_two_versions_of_one_file_are_told_apart(write: Write) -> None:
    old, new = write("old/mine.py", hook("mine")), write("new/mine.py", hook("mine", "other"))
    found = load_registry([old, new])
    names = [name for name in found.backends if name.endswith(":mine")]
    assert {found.backends[name].source.file for name in names} == {str(old), str(new)}
    assert all(name.startswith("mine_") for name in names)
    assert not [p for p in found.plugins if p.error]


def test_a_module_that_two_entry_points_reach_is_asked_once(install: Install) -> None:
    install("one", "fastpack", {"fastpack/__init__.py": "", "fastpack/hooks.py": hook("fast")})
    install("two", "fastpack.hooks", {})
    found = load_registry()
    assert "fast" in found.backends
    assert sum(p.name == "fastpack.hooks" for p in found.plugins) == 1


def test_an_entry_point_that_names_our_modules_does_not_take_them_over(install: Install) -> None:
    install("grabber", "sparsebench.builtin.backends", {})
    found = load_registry()
    assert found.backends["torch-dense"].source.ours
    assert {p.distribution for p in found.plugins} == {"sparsebench"}


def test_the_hash_of_an_installed_plugin_covers_its_package(install: Install) -> None:
    files = {"fastpack/__init__.py": "", "fastpack/hooks/__init__.py": hook("fast"), "fastpack/_deep.py": "one = 1"}
    site = install("fast-pack", "fastpack.hooks", files)

    def digest() -> str:
        (info,) = [p for p in load_registry().plugins if p.distribution == "fast-pack"]
        assert (info.status, info.name, info.version) == ("ok", "fastpack.hooks", "1.0")
        return info.sha256

    before = digest()
    (site / "fastpack/notes.txt").write_text("nothing that runs")
    assert digest() == before
    (site / "fastpack/_deep.py").write_text("one = 2")
    changed = digest()
    assert changed != before, "what a kernel does is not in the module with the hook"
    (site / "fastpack/_kernel.abi3.so").write_bytes(b"\x7fELF")
    assert digest() not in (before, changed)
    (site / "fastpack/_kernel.abi3.so").unlink()
    assert digest() == changed


def test_the_hash_of_a_module_without_a_package_is_its_file(install: Install) -> None:
    site = install("lonely", "lonely_module", {"lonely_module.py": hook("lonely"), "neighbour.py": "one = 1"})
    (before,) = [p.sha256 for p in load_registry().plugins if p.distribution == "lonely"]
    (site / "neighbour.py").write_text("one = 2")
    assert [p.sha256 for p in load_registry().plugins if p.distribution == "lonely"] == [before]


def test_a_shared_namespace_is_not_part_of_a_plugin(install: Install) -> None:
    install("part", "shared_space.part", {"shared_space/part/__init__.py": hook("part")})
    site = install("other", "shared_space.other", {"shared_space/other/__init__.py": hook("other")})
    before = {p.distribution: p.sha256 for p in load_registry().plugins}
    (site / "shared_space/other/__init__.py").write_text(hook("another"))
    after = {p.distribution: p.sha256 for p in load_registry().plugins}
    assert before["part"] == after["part"] != ""
    assert before["other"] != after["other"]


def test_what_a_plugin_requires_is_looked_for_and_not_imported(install: Install, write: Write) -> None:
    site = install("heavy", "heavy_lib", {"heavy_lib/__init__.py": "raise AssertionError('imported')"})
    (site / "just_a_folder").mkdir()
    found = load_registry([
        write("a.py", hook("there", requires=("heavy_lib", "heavy_lib.sub.deeper"))),
        write("b.py", hook("absent", requires=("no_such_lib.sub",))),
        write("c.py", hook("folder", requires=("just_a_folder",))),
    ])  # fmt: skip
    assert found.backends["there"].missing() is None
    assert "no_such_lib.sub" in (found.backends["absent"].missing() or "")
    assert "just_a_folder" in (found.backends["folder"].missing() or ""), "any folder on the path looks like a package"
    assert "heavy_lib" not in sys.modules


def test_a_dotted_requirement_does_not_load_scipy(write: Write) -> None:
    path = write("a.py", hook("a", requires=("scipy.sparse",)))
    program = (
        "import sys; from sparsebench.registry import load_registry;"
        "load_registry(sys.argv[1:]).backends['a'].missing(); print('scipy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-P", "-c", program, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("place", ["package", "module", "hook"])
def test_ctrl_c_does_not_quarantine_what_is_ours(place: str, monkeypatch: pytest.MonkeyPatch, write: Write) -> None:
    files = {
        "package": {"__init__.py": "raise KeyboardInterrupt"},
        "module": {"__init__.py": "", "inner.py": "raise KeyboardInterrupt"},
        "hook": {"__init__.py": "", "inner.py": INTERRUPTED_HOOK},
    }[place]
    for name, content in files.items():
        folder = write(f"interrupted_{place}/{name}", content).parent
    monkeypatch.syspath_prepend(folder.parent)
    with pytest.raises(KeyboardInterrupt):
        discovery.examine(Source(f"interrupted_{place}", discovery.OURS))
    assert "KeyboardInterrupt" in "".join(
        f.info.error for f in discovery.examine(Source(f"interrupted_{place}", "else"))
    )


def test_strict_names_the_plugin_that_is_broken(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write("broken.py", "raise RuntimeError('no luck')")
    load_registry([path])
    monkeypatch.setenv("SPARSEBENCH_STRICT_PLUGINS", "1")
    with pytest.raises(PluginError, match=r"broken\.py: import failed: RuntimeError: no luck"):
        load_registry([path])


def test_a_name_that_nobody_has_tells_what_was_left_out(write: Write) -> None:
    found = load_registry([write("broken.py", "raise RuntimeError('no luck')")])
    with pytest.raises(UsageError, match=r"broken\.py is left out: import failed: RuntimeError: no luck"):
        found.find("backends", "mine")


def test_without_foreign_plugins_no_process_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discovery, "installed_sources", lambda: ([], []))
    monkeypatch.setitem(sys.modules, "sparsebench.probing", None)
    assert registry.load_registry().plugins == ()
