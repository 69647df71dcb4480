"""The fingerprint stays, the notes move, and neither says whose machine it is."""

import getpass
import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from sparsebench import host


def test_the_fingerprint_is_the_same_again_and_in_another_process() -> None:
    program = "import json; from sparsebench import host; print(json.dumps(host.fingerprint()))"
    other = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, check=True)
    assert json.loads(other.stdout) == json.loads(json.dumps(host.fingerprint()))


def test_the_fingerprint_knows_what_decides_timings() -> None:
    known = host.fingerprint()
    assert known["cpu"]
    assert known["cores_allowed"] >= 1
    assert known["libraries"]["torch"].startswith("2")
    assert set(known["flags"]) <= host.cpu_flags()


@pytest.mark.parametrize(
    ("siblings", "apart"),
    [
        ({0: "0", 1: "1", 2: "2", 3: "3"}, [0, 1, 2, 3]),
        ({0: "0-1", 1: "0-1", 2: "2-3", 3: "2-3"}, [0, 2]),
        ({0: "0,2", 1: "1,3", 2: "0,2", 3: "1,3"}, [0, 1]),
        ({}, [0, 1, 2, 3]),
    ],
)
def test_cores_apart_are_no_two_threads_of_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, siblings: dict[int, str], apart: list[int]
) -> None:
    for core, text in siblings.items():
        (tmp_path / f"cpu{core}" / "topology").mkdir(parents=True)
        (tmp_path / f"cpu{core}" / "topology" / "thread_siblings_list").write_text(f"{text}\n")
    monkeypatch.setattr(host, "CPU", tmp_path)
    monkeypatch.setattr(host, "cores_allowed", lambda: [0, 1, 2, 3])
    assert host.cores_apart() == apart


def test_nothing_names_the_machine_or_its_user() -> None:
    text = json.dumps([host.fingerprint(), host.volatile()])
    node = Path("/proc/sys/kernel/hostname").read_text().strip()
    assert f'"{node}"' not in text
    assert f'"{getpass.getuser()}"' not in text


def test_the_notes_are_plain_data() -> None:
    known = host.volatile()
    assert len(known["load"]) == 3
    assert known["memory_available"] > 0
    assert json.loads(json.dumps(known)) == known


def test_the_code_hash_covers_every_part_and_moves_with_a_byte(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    files = host._code_files()
    packages = {name.partition("/")[0] for name in files}
    assert packages == set(host.PACKAGES)
    assert "sparsebench/cli/list.py" in files
    assert not [name for name in files if "venv" in name or name.startswith("sparsebench/builtin")]
    before = host.code_hash()
    assert before == host.code_hash()
    changed = tmp_path / "errors.py"
    changed.write_bytes(files["sparsebench/errors.py"].read_bytes() + b"\n")
    monkeypatch.setattr(host, "_code_files", lambda: {**files, "sparsebench/errors.py": changed})
    assert host.code_hash() != before


def test_git_state_of_a_checkout(tmp_path: Path) -> None:
    def git(*words: str) -> None:
        identity = ["-c", "user.name=nobody", "-c", "user.email=nobody@example.org"]
        subprocess.run(["git", "-C", str(tmp_path), *identity, *words], check=True, capture_output=True)

    assert host.git_state(tmp_path) == {}
    git("init", "-b", "trunk")
    assert host.git_state(tmp_path) == {}, "no commit yet"
    (tmp_path / "file").write_text("one")
    git("add", "file")
    git("commit", "-m", "one")
    state = host.git_state(tmp_path)
    assert (len(state["commit"]), state["branch"], state["dirty"]) == (40, "trunk", False)
    (tmp_path / "file").write_text("two")
    assert host.git_state(tmp_path)["dirty"] is True


def test_the_run_is_of_the_checkout_not_of_where_one_stands(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Installed:
        def __init__(self, url: str, *, editable: bool = True) -> None:
            self.text = json.dumps({"url": url, "dir_info": {"editable": editable}})

        def read_text(self, _: str) -> str | None:
            return self.text

    checkout = tmp_path / "check out"
    checkout.mkdir()
    git = ["git", "-C", str(tmp_path), "-c", "user.name=nobody", "-c", "user.email=nobody@example.org"]
    for words in (["init"], ["commit", "--allow-empty", "-m", "one"]):
        subprocess.run([*git, *words], check=True, capture_output=True)
    monkeypatch.chdir(tmp_path)

    def state(**kwargs: bool) -> dict[str, object]:
        monkeypatch.setattr(metadata, "distribution", lambda _: Installed(checkout.as_uri(), **kwargs))
        return host.own_git_state()

    assert state() == {}, "a folder that lies in somebody's repository is not of it"
    (checkout / "pyproject.toml").touch()
    assert state() == {}
    subprocess.run([*git, "add", str(checkout / "pyproject.toml")], check=True, capture_output=True)
    assert state()["dirty"] is True
    assert state(editable=False) == {}
    monkeypatch.setattr(Installed, "read_text", lambda *_: None)
    assert state() == {}, "a wheel from an index says nothing of where it comes from"


def test_variables_that_change_timings_are_noted_without_naming_a_user(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if host.TUNING.fullmatch(name)]:
        monkeypatch.delenv(name)
    given = {
        "ATEN_CPU_CAPABILITY": "default", "DNNL_MAX_CPU_ISA": "AVX2", "ONEDNN_VERBOSE": "1", "MKL_CBWR": "AUTO,STRICT",
        "OMP_PLACES": "{0:4}", "KMP_AFFINITY": "granularity=fine", "OPENBLAS_CORETYPE": "Zen", "MALLOC_ARENA_MAX": "1",
    }  # fmt: skip
    for name, value in {**given, "LD_PRELOAD": "/somewhere/me/libtcmalloc.so:/lib/b.so", "COMPLETE": "1"}.items():
        monkeypatch.setenv(name, value)
    assert host.volatile()["environment"] == {**given, "LD_PRELOAD": "libtcmalloc.so:b.so"}


def test_git_state_of_nothing(tmp_path: Path) -> None:
    assert host.git_state(tmp_path / "nowhere") == {}


def test_limits_of_cgroup_v2(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    outer, inner = tmp_path, tmp_path / "inner"
    inner.mkdir()
    (outer / "cpu.max").write_text("150000 100000\n")
    (inner / "cpu.max").write_text("max 100000\n")
    (inner / "memory.max").write_text("1048576\n")
    monkeypatch.setattr(host, "_cgroup_folders", lambda _: [inner, outer])
    assert host.cpu_quota() == 1.5
    assert host.memory_limit() == 1048576


def test_limits_of_cgroup_v1(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "cpu.cfs_quota_us").write_text("-1\n")
    (tmp_path / "cpu.cfs_period_us").write_text("100000\n")
    (tmp_path / "memory.limit_in_bytes").write_text("9223372036854771712\n")
    monkeypatch.setattr(host, "_cgroup_folders", lambda _: [tmp_path])
    assert host.cpu_quota() is None
    assert host.memory_limit() is None
    (tmp_path / "cpu.cfs_quota_us").write_text("50000\n")
    assert host.cpu_quota() == 0.5


@pytest.mark.parametrize(("text", "cores"), [("0-3,8", [0, 1, 2, 3, 8]), ("5", [5]), ("", [])])
def test_cpu_lists(text: str, cores: list[int]) -> None:
    assert host._cpu_list(text) == cores
