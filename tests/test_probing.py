"""Foreign plugins in processes of their own: however one ends, the others answer, and no process outlives its use."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from sparsebench import probing
from sparsebench.discovery import Source, file_source

Write = Callable[[str, str], Source]
GOOD = """
from sparsebench.plugin import BackendSpec, hookimpl

@hookimpl
def sparsebench_backends():
    return [BackendSpec(name="good", summary="one", load="a:B", ops=("linear",))]
"""
WRITES_EVERYWHERE = """
import os
for descriptor in range(3, 64):
    try:
        os.write(descriptor, {junk!r})
    except OSError:
        pass
os._exit({code})
"""
FORGED = b'[{"info":{"name":"x"},"specs":{"backends":[{"name":7}]}}]'
UNKNOWN = b'[{"info":{"name":"x"},"specs":{"kernels":[]}}]'
HANGS = """
import os, pathlib, time
pathlib.Path(__file__).with_suffix(".pid").write_text(str(os.getpid()))
time.sleep(60)
"""
HANGS_IN_A_CHILD = """
import pathlib, subprocess, time
child = subprocess.Popen(["sleep", "60"])
pathlib.Path(__file__).with_suffix(".pid").write_text(str(child.pid))
time.sleep(60)
"""


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def make(name: str, text: str) -> Source:
        path = tmp_path / f"{name}.py"
        path.write_text(text)
        return file_source(path)

    return make


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (WRITES_EVERYWHERE.format(junk=b"\xff\x00junk", code=0), "its process answered junk"),
        (WRITES_EVERYWHERE.format(junk=b"junk", code=1), "its process answered junk"),
        (WRITES_EVERYWHERE.format(junk=FORGED, code=0), "its process answered junk"),
        (WRITES_EVERYWHERE.format(junk=UNKNOWN, code=0), "its process answered junk"),
        (WRITES_EVERYWHERE.format(junk=b"{}", code=0), "its process answered junk"),
        ("import os\nos._exit(0)", "exited with code 0"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("import sys\nsys.exit(3)", "SystemExit: 3"),
        ("import os\nos.abort()", "killed by signal 6"),
    ],
    ids=["bytes", "text", "forged", "unknown-kind", "other-type", "silent", "interrupt", "exit", "abort"],
)
def test_a_plugin_that_ends_badly_loses_only_itself(write: Write, text: str, reason: str) -> None:
    (bad,), (good,) = probing.probe([write("bad", text), write("good", GOOD)])
    assert (bad.info.status, bad.specs) == ("quarantined", {})
    assert reason in bad.info.error
    assert [spec["name"] for spec in good.specs["backends"]] == ["good"]


def test_what_a_plugin_prints_does_no_harm(write: Write) -> None:
    ((found,),) = probing.probe([write("loud", f"import os\nos.write(1, b'x' * 99999)\nprint('y')\n{GOOD}")])
    assert found.info.error == ""


@pytest.mark.parametrize("text", [HANGS, HANGS_IN_A_CHILD], ids=["itself", "a-child"])
def test_an_import_that_hangs_is_given_up_with_all_it_started(write: Write, text: str) -> None:
    source = write("hangs", text)
    ((found,),) = probing.probe([source], seconds=1.5)
    assert "did not end within 1.5 s" in found.info.error
    wait_for(lambda: not alive(source))


LOADS = "import sys; from sparsebench.registry import load_registry; load_registry(sys.argv[1:])"


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_no_probe_outlives_its_parent(write: Write, how: signal.Signals) -> None:
    source = write("hangs", HANGS)
    parent = subprocess.Popen([sys.executable, "-P", "-c", LOADS, source.file], stderr=subprocess.DEVNULL)
    wait_for(lambda: alive(source))
    begun = time.monotonic()
    parent.send_signal(how)
    parent.wait(10)
    wait_for(lambda: not alive(source))
    assert time.monotonic() - begun < 5, "the probe's own 20 s are not waited for"


def test_a_probe_whose_parent_is_gone_already_does_nothing(write: Write) -> None:
    begun = time.monotonic()
    nobody = subprocess.run(
        [sys.executable, "-P", "-m", "sparsebench.discovery", "1"], stdin=subprocess.DEVNULL, capture_output=True
    )
    assert (nobody.returncode, nobody.stderr) == (0, b"")
    assert os.getpid() != 1
    assert time.monotonic() - begun < 10


def alive(source: Source) -> bool:
    """Whether the process runs that `source` has written down."""
    path = Path(source.file).with_suffix(".pid")
    try:
        pid = int(path.read_text() or 0) if path.exists() else 0
        return bool(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 15
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
