"""`--help`, every `list` and every other way to ask for help load neither torch nor numpy."""

import json
import subprocess
import sys
import time

import pytest

from sparsebench.cli import VERBS
from sparsebench.cli.list import COLUMNS

HEAVY = ("torch", "numpy", "scipy", "sklearn")
ASK = """
import json, sys
from sparsebench.cli import main
try:
    main(sys.argv[1:])
except SystemExit as stop:
    loaded = [name for name in {heavy} if name in sys.modules]
    print(json.dumps([stop.code, loaded]), file=sys.stderr)
"""
COMMANDS = [["--help"], ["--version"], *(["list", kind] for kind in COLUMNS), *([verb, "--help"] for verb in VERBS)]


def ask(program: str, *args: str) -> tuple[int, list[str], float]:
    begun = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-P", "-c", program.format(heavy=HEAVY), *args], capture_output=True, text=True, timeout=60
    )
    code, loaded = json.loads(done.stderr.strip().splitlines()[-1])
    return code, loaded, time.perf_counter() - begun


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_loads_neither_torch_nor_numpy(command: list[str]) -> None:
    code, loaded, seconds = ask(ASK, *command)
    print(f"sparsebench {' '.join(command)}: {seconds:.2f} s")
    assert (code, loaded) == (0, [])


def test_a_verb_that_loads_numpy_is_seen() -> None:
    assert ask("import numpy\n" + ASK, "--version")[1] == ["numpy"]


def test_importing_the_package_loads_nothing() -> None:
    program = "import sys, sparsebench; print([n for n in sys.modules if n.startswith('sparsebench.')])"
    done = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
