"""What the machine is, and advice that only speaks when there is something to say, the worst first."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from sparsebench import ceilings
from sparsebench.cli import doctor
from sparsebench.cli.advice import advise

Call = Callable[..., Any]
QUIET: dict[str, Any] = {
    "cores_allowed": 2, "load": [0.1, 0.1, 0.1], "cpu_quota": None, "openmp_runtimes": 1, "steal_now": 0.0,
    "governor": "performance", "clocksource": "tsc", "numa_nodes": 1, "huge_pages": "madvise", "machine": "x86_64",
    "isa": ["avx2"], "memory_limit_gib": None, "swap_used_gib": 0.0, "memory_available_gib": 20.0, "quarantined": [],
    "backends_missing": [], "data_root": "/data", "data_found": ["mnist"],
}  # fmt: skip


def test_a_quiet_machine_gets_no_advice() -> None:
    assert advise(QUIET) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"load": [1.8, 1.0, 1.0]}, "load is 1.8 on 2 cores"),
        ({"openmp_runtimes": 2}, "2 OpenMP runtimes"),
        ({"cpu_quota": 1.5}, "--threads 1"),
        ({"steal_now": 0.1}, "hypervisor took 10%"),
        ({"governor": "powersave"}, "governor is powersave"),
        ({"clocksource": "hpet"}, "hpet"),
        ({"numa_nodes": 2}, "numactl"),
        ({"swap_used_gib": 1.0, "memory_available_gib": 0.5}, "swap"),
        ({"huge_pages": "never"}, "huge pages"),
        ({"cores_allowed": 1}, "one core"),
        ({"isa": ["sse4_2"]}, "AVX2"),
        ({"memory_limit_gib": 2.0}, "oom"),
        ({"quarantined": ["mine: broke"]}, "list plugins"),
        ({"backends_missing": ["sparseprop: is not installed"]}, "sparseprop"),
        ({"data_root": ""}, "SPARSEBENCH_DATA"),
        ({"data_found": []}, "empty"),
        ({"environment": ["OMP_NUM_THREADS=1", "ATEN_CPU_CAPABILITY=default"]}, "ATEN_CPU_CAPABILITY may hold"),
        ({"torch_error": "ImportError"}, "torch does not start"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else None,
)
def test_each_fact_has_its_advice(change: dict[str, Any], words: str) -> None:
    (line,) = advise({**QUIET, **change})
    assert words in line
    assert ":" in line or ";" in line, "what is seen, and what to do"


def test_the_largest_effect_comes_first() -> None:
    lines = advise({**QUIET, "data_root": "", "openmp_runtimes": 2, "governor": "powersave"})
    assert ["OpenMP" in lines[0], "governor" in lines[1], "SPARSEBENCH_DATA" in lines[2]] == [True, True, True]


def test_json_is_one_flat_object(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = {"torch_threads": 2, "torch_isa": "AVX2", "runtimes": ["openmp libgomp.so.1"], "openmp_runtimes": 1}
    monkeypatch.setattr(doctor, "torch_process", lambda: torch)
    monkeypatch.setenv("MKL_CBWR", "COMPATIBLE")
    code, out, _ = call("doctor", "--json")
    known = json.loads(out)
    assert code == 0
    assert not [key for key, value in known.items() if isinstance(value, dict)]
    assert "MKL_CBWR=COMPATIBLE" in known["environment"]
    assert any(line.startswith("MKL_CBWR may hold the dense baseline back") for line in known["advice"])
    assert {"cpu", "cores_allowed", "isa", "load", "torch_isa", "library_torch", "advice"} <= known.keys()
    assert {"ceiling_isa", "ceiling_gflops", "ceiling_memory_gb_s"} <= known.keys()
    assert known["ceiling_gflops"] > 0.1


def test_the_text_names_what_it_found(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "torch_process", lambda: {"torch_error": "ImportError: libfoo.so"})
    code, out, _ = call("doctor")
    assert code == 0
    assert "libfoo.so" in out
    assert "cores allowed" in out
    assert "ceiling GFLOP/s " in out
    assert "ceiling memory GB/s " in out
    assert out.rstrip().endswith("Next: sparsebench run suite-smoke")


def test_ceilings_that_cannot_be_measured_are_a_line_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ceilings, "PROBE", "raise ImportError('libbaz.so')")
    (line,) = doctor.measured_ceilings().values()
    assert "libbaz.so" in line
    assert any("ceiling_error" in keys for keys in doctor.GROUPS.values())


def test_the_process_with_torch_answers() -> None:
    known = doctor.torch_process()
    assert known["openmp_runtimes"] >= 0
    assert known["torch_threads"] >= 1


def test_a_process_that_fails_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "TORCH_PROBE", "raise ImportError('libbar.so')")
    assert doctor.torch_process() == {"torch_error": "ImportError: libbar.so"}


def test_a_process_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "TORCH_PROBE", "import time; time.sleep(60)")
    monkeypatch.setattr(doctor, "TORCH_SECONDS", 0.2)
    assert "did not end" in doctor.torch_process()["torch_error"]
