"""The layout keeps its promises: imports run downwards, files stay small, nothing knows its author's machine."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# Lowest first. A module may import its own group and the groups of the rows above it, nothing below.
LEVELS = (
    ("errors", "lifeline", "wrapping"),
    ("problem", "timing", "host"),
    ("plugin",),
    ("records",),
    ("discovery",),
    ("probing", "plans"),
    ("registry",),
    ("weight", "state"),
    ("patterns",),
    ("oracle", "tolerance"),
    ("verify",),
    ("place",),
    ("kernels",),
    ("ceilings",),
    ("nn",),
    ("pruning",),
    ("training",),
    ("builtin",),
    ("runs",),
    ("testing",),
    ("harness",),
    ("report", "formats"),
    ("cli",),
)
RANK = {group: rank for rank, groups in enumerate(LEVELS) for group in groups}
BENCHMARK_WING = {"testing", "harness", "runs", "report", "formats", "cli"}
READS_ONLY_RECORDS = {"errors", "records", "runs", "report", "formats", "wrapping"}
LIGHT = {
    "errors", "lifeline", "problem", "plugin", "discovery", "probing", "registry", "host", "records", "runs", "report",
    "formats", "cli", "ceilings", "plans", "wrapping",
}  # fmt: skip
HEAVY = {"torch", "numpy", "scipy", "sklearn"}
SOURCES = {"sparsebench": ROOT / "sparsebench", "sparsebench.builtin": ROOT / "plugins"}
TEXT = {".py", ".pyx", ".pyi", ".cpp", ".h", ".c", ".toml", ".md", ".txt", ".cfg", ""}
LEFT_OUT = {"build", "dist", "runs", "results", "__pycache__"}


def modules() -> Iterator[tuple[str, Path]]:
    for package, folder in SOURCES.items():
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            yield ".".join((package, *(p for p in parts if p != "__init__"))), path


def group(module: str) -> str:
    """'nn' of sparsebench.nn.linear; records are a group of their own: everything may read them."""
    if module.startswith("sparsebench.runs.records"):
        return "records"
    return module.split(".")[1] if "." in module else ""


def imports(tree: ast.AST, *, inside_functions: bool) -> Iterator[str]:
    """Every module that gets imported when the file runs; what only a type checker reads does not count."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif inside_functions or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from imports(node, inside_functions=inside_functions)


def internal(module: str, names: set[str], found: Iterator[str]) -> set[str]:
    """Those of the imports that are modules of ours."""
    return {name for name in found if name in names and name != module}


NAMES = {name for name, _ in modules()} | {"sparsebench.kernels"}
TREES = {name: ast.parse(path.read_text()) for name, path in modules()}


def upward(module: str, tree: ast.AST) -> list[str]:
    """The imports of one module that run against the arrows of the architecture."""
    own = group(module)
    reached = {group(name) for name in internal(module, NAMES, imports(tree, inside_functions=True))} - {own, ""}
    wrong = [other for other in reached if RANK[other] >= RANK[own]]
    if own not in BENCHMARK_WING:
        wrong += [other for other in reached if other in BENCHMARK_WING]
    if own in {"runs", "report", "formats"}:
        wrong += [other for other in reached if other not in READS_ONLY_RECORDS]
    return sorted(set(wrong))


def test_every_group_of_modules_has_its_place() -> None:
    groups = {group(name) for name in NAMES} - {""}
    assert groups <= RANK.keys(), f"give {groups - RANK.keys()} a place in LEVELS, and in the architecture"


@pytest.mark.parametrize("module", sorted(TREES))
def test_imports_run_downwards(module: str) -> None:
    if module == "sparsebench":
        assert not internal(module, NAMES, imports(TREES[module], inside_functions=False))
        return
    assert upward(module, TREES[module]) == []


@pytest.mark.parametrize(
    ("module", "line", "found"),
    [
        ("sparsebench.nn.linear", "from sparsebench.harness import cells", ["harness"]),
        ("sparsebench.problem", "def f():\n    import sparsebench.weight", ["weight"]),
        ("sparsebench.report.table", "import sparsebench.registry", ["registry"]),
        ("sparsebench.nn.linear", "from sparsebench import weight", []),
        ("sparsebench.plugin", "if TYPE_CHECKING:\n    import sparsebench.weight", []),
    ],
)
def test_an_import_that_runs_upwards_is_seen(module: str, line: str, found: list[str]) -> None:
    assert upward(module, ast.parse(line)) == found


def test_no_circles() -> None:
    graph = {n: internal(n, NAMES, imports(t, inside_functions=False)) for n, t in TREES.items()}
    assert circle(graph) is None


def test_a_circle_is_seen() -> None:
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]


def circle(graph: dict[str, set[str]]) -> list[str] | None:
    """A way from a module back to itself, or None."""
    done: set[str] = set()

    def walk(node: str, path: list[str]) -> list[str] | None:
        if node in path:
            return [*path[path.index(node) :], node]
        if node in done:
            return None
        for successor in sorted(graph.get(node, ())):
            if found := walk(successor, [*path, node]):
                return found
        done.add(node)
        return None

    return next((found for node in sorted(graph) if (found := walk(node, []))), None)


@pytest.mark.parametrize("module", [name for name in sorted(TREES) if group(name) in LIGHT | {""}])
def test_what_the_command_line_loads_first_does_not_load_torch(module: str) -> None:
    roots = {name.partition(".")[0] for name in imports(TREES[module], inside_functions=False)}
    assert not roots & HEAVY


def test_a_plugin_module_that_is_scanned_imports_the_contract_alone() -> None:
    for module, tree in TREES.items():
        parts = module.split(".")
        if parts[:2] == ["sparsebench", "builtin"] and len(parts) == 4 and not parts[3].startswith("_"):
            found = set(imports(tree, inside_functions=True))
            ours = {name for name in found if name.startswith("sparsebench")}
            assert all(name.startswith("sparsebench.plugin") for name in ours), f"{module} imports {ours}"


def files(folder: Path = ROOT) -> Iterator[Path]:
    """Every text file of the project, without what was made from it."""
    for path in sorted(folder.iterdir()):
        if path.name in LEFT_OUT or path.name.endswith(".egg-info") or (path.name[0] == "." and path.name != ".ci"):
            continue
        if path.is_dir():
            yield from files(path)
        elif path.suffix in TEXT:
            yield path


def test_a_file_has_one_idea() -> None:
    long = {
        str(path.relative_to(ROOT)): lines
        for path in files()
        if path.suffix in {".py", ".pyx", ".cpp", ".h", ".pyi"} and (lines := len(path.read_text().splitlines())) > 300
    }
    assert not long, "a file that passes 300 lines is two ideas; find the seam"


def test_no_file_knows_the_machine_it_was_written_on() -> None:
    roots = ("work", "home", "root", "opt", "Users", "mnt")
    machine = re.compile(rf"(?<![\w.~/-])/(?:{'|'.join(roots)})/\w")
    found = [
        f"{path.relative_to(ROOT)}: {match.group()}"
        for path in files()
        for match in machine.finditer(path.read_text(errors="replace"))
    ]
    assert not found
