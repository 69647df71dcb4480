"""`sparsebench doctor`: what this machine is, as far as it decides timings, and what to do about it."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import click

from sparsebench import ceilings, host
from sparsebench.cli.advice import advise
from sparsebench.errors import RunError
from sparsebench.registry import Registry, load_registry
from sparsebench.wrapping import beside

TORCH_SECONDS = 120.0
# In a process of its own: the runtimes that count are those of a process that has worked with torch.
TORCH_PROBE = """
import json, threadpoolctl, torch
torch.ones(64, 64) @ torch.ones(64, 64)
pools = threadpoolctl.threadpool_info()
print(json.dumps({
    "torch_threads": torch.get_num_threads(),
    "torch_isa": torch.backends.cpu.get_cpu_capability(),
    "runtimes": sorted(f"{p['user_api']} {p['filepath'].rpartition('/')[2]}" for p in pools),
    "openmp_runtimes": sum(p["user_api"] == "openmp" for p in pools),
}))
"""
GROUPS: dict[str, tuple[str, ...]] = {
    "processor": ("cpu", "cpu_id", "isa", "cache_L1d", "cache_L2", "cache_L3", "mhz", "governor",
                  "microcode", "hypervisor"),
    "cores": ("cores_online", "cores_allowed", "cpu_quota", "numa_nodes", "load", "steal_now", "steal_share"),
    "memory": ("memory_gib", "memory_available_gib", "memory_limit_gib", "swap_used_gib", "huge_pages"),
    "ceilings": ("ceiling_isa", "ceiling_gflops", "ceiling_L1_gb_s", "ceiling_L2_gb_s", "ceiling_L3_gb_s",
                 "ceiling_memory_gb_s", "ceiling_threads", "ceiling_gflops_all_threads",
                 "ceiling_memory_gb_s_all_threads", "ceiling_error"),
    "clock": ("clocksource", "clock_resolution_ns", "clock_step_ns"),
    "software": ("python", "kernel", "library_torch", "library_numpy", "library_scipy", "library_mkl",
                 "library_sparseprop", "torch_threads", "torch_isa", "runtimes", "environment", "torch_error"),
    "sparsebench": ("version", "backends_ready", "backends_missing", "quarantined", "data_root",
                    "data_found"),
}  # fmt: skip
EPILOG = """\
\b
Examples:
  sparsebench doctor
  sparsebench doctor --json | jq .load
  sparsebench doctor --aa 20      are verdicts right here? 200 took 19 minutes

Next: sparsebench run suite-smoke
"""


@click.command("doctor", epilog=EPILOG)
@click.option("--json", "as_json", is_flag=True, help="One flat object; `advice` is a list.")
@click.option(
    "--aa",
    type=click.IntRange(1),
    metavar="N",
    help="Compare kernels with themselves N times: are verdicts right here?",
)
def command(as_json: bool, aa: int | None) -> int:
    """Say what this machine is: cores, instruction sets, memory, clock, libraries; what it can do at most,
    in multiply-adds and bytes per second; and what would make timings steadier, in order of effect.
    Changes nothing. Takes seconds: a process imports torch, another measures."""
    if aa is not None:
        from sparsebench.cli.doctor_aa import measure

        return measure(aa, as_json)
    known = facts(load_registry())
    known["advice"] = advise(known)
    if as_json:
        click.echo(json.dumps(known, indent=2))
        return 0
    for title, keys in GROUPS.items():
        click.secho(title, bold=True)
        for key in keys:
            if known.get(key) not in (None, "", []):
                click.echo("\n".join(beside(f"  {_label(key):<34}", _text(known[key]), hang=36)))
    click.secho("\nWhat to do, by effect", bold=True)
    for line in known["advice"] or ["nothing: this machine is as quiet as it looks from here"]:
        click.echo("\n".join(beside("  - ", line, hang=4)))
    click.echo("\nNext: sparsebench run suite-smoke")
    return 0


def facts(registry: Registry) -> dict[str, Any]:
    """Everything as one flat object: numbers, text, lists of text."""
    import psutil

    before = psutil.cpu_times()
    torch = torch_process()
    steal = steal_between(before, psutil.cpu_times())
    return {**_machine(), "steal_now": steal, **measured_ceilings(), **_clock(), **torch, **_installed(registry)}


def measured_ceilings() -> dict[str, Any]:
    """What one thread and all cores that are allowed can do at most: `ceiling_gflops`, `ceiling_L2_gb_s`, …"""
    cores = host.cores_allowed()
    try:
        one = ceilings.measure_apart(1, cores[:1])
        every = ceilings.measure_apart(len(cores), cores, {"OMP_WAIT_POLICY": "PASSIVE"}) if len(cores) > 1 else None
    except RunError as error:
        return {"ceiling_error": str(error)}
    known: dict[str, Any] = {"ceiling_isa": one.isa, "ceiling_gflops": round(one.gflops, 1)}
    known |= {f"ceiling_{level.name}_gb_s": round(level.gb_s, 1) for level in one.levels}
    if every is not None:
        known |= {"ceiling_threads": every.threads, "ceiling_gflops_all_threads": round(every.gflops, 1)}
        known |= {f"ceiling_{level.name}_gb_s_all_threads": round(level.gb_s, 1) for level in every.levels}
    return known


def torch_process() -> dict[str, Any]:
    """Threads, instruction set and thread runtimes of a process that has multiplied matrices with torch."""
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-c", TORCH_PROBE],
            capture_output=True,
            text=True,
            timeout=TORCH_SECONDS,
            check=False,
        )
        answer: dict[str, Any] = json.loads(done.stdout)
    except subprocess.TimeoutExpired:
        return {"torch_error": f"a process that imports torch did not end within {TORCH_SECONDS:g} s"}
    except ValueError:
        return {"torch_error": (done.stderr.strip().splitlines() or ["it said nothing"])[-1]}
    return answer


def steal_between(before: Any, after: Any) -> float:
    """The share of the time between two `psutil.cpu_times()` that the hypervisor gave to somebody else."""
    total = sum(after) - sum(before)
    stolen = getattr(after, "steal", 0.0) - getattr(before, "steal", 0.0)
    return round(stolen / total, 4) if total > 0 else 0.0


def clock_step_ns() -> int:
    """The smallest step that the stopwatch's clock was seen to make, in nanoseconds."""
    seen = [time.perf_counter_ns() for _ in range(2000)]
    return min((b - a for a, b in itertools.pairwise(seen) if b > a), default=0)


def _machine() -> dict[str, Any]:
    stable, now = host.fingerprint(), host.volatile()
    sizes = {f"{key}_gib": _gib(now.pop(key)) for key in ("memory_available", "memory_limit", "swap_used")}
    caches = {f"cache_{level}": size for level, size in stable.pop("caches").items()}
    versions = {f"library_{name}": version for name, version in stable.pop("libraries").items()}
    now["environment"] = [f"{name}={value}" for name, value in now["environment"].items()]
    return {**stable, "isa": stable.pop("flags"), **caches, **now, **sizes, **versions}


def _clock() -> dict[str, Any]:
    resolution = time.get_clock_info("perf_counter").resolution
    return {"clock_resolution_ns": round(resolution * 1e9, 3), "clock_step_ns": clock_step_ns()}


def _installed(registry: Registry) -> dict[str, Any]:
    from importlib.metadata import version

    missing = {name: entry.missing() for name, entry in registry.backends.items()}
    root = os.environ.get("SPARSEBENCH_DATA", "")
    return {
        "version": version("sparsebench"),
        "backends_ready": [name for name, why in missing.items() if why is None],
        "backends_missing": [f"{name}: {why}" for name, why in missing.items() if why is not None],
        "quarantined": [f"{p.name}: {p.error}" for p in registry.plugins if p.status != "ok"],
        "data_root": root,
        "data_found": sorted(p.name for p in Path(root).iterdir()) if root and Path(root).is_dir() else [],
    }


def _gib(size: int | None) -> float | None:
    return None if size is None else round(size / 2**30, 2)


def _label(key: str) -> str:
    return key.replace("gb_s", "GB/s").replace("gflops", "GFLOP/s").replace("_", " ")


def _text(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
