"""From the facts of `doctor` to a list of things to do, the one with the largest effect on timings first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

Facts = Mapping[str, Any]


def advise(facts: Facts) -> list[str]:
    """One line each: what is seen, and what to do. Empty if nothing stands out."""
    return [*_breaks(facts), *_disturbs(facts), *_limits(facts), *_lacks(facts)]


# They keep torch and MKL from instructions that the CPU has, and so the baseline from its speed.
HOLD_BACK = ("ATEN_CPU_CAPABILITY", "DNNL_MAX_CPU_ISA", "ONEDNN_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS", "MKL_CBWR")


def _breaks(facts: Facts) -> Iterator[str]:
    """What makes timings wrong by a factor."""
    if facts.get("torch_error"):
        yield f"torch does not start: {facts['torch_error']}; install it again"
    if facts.get("openmp_runtimes", 0) > 1:
        yield (
            f"{facts['openmp_runtimes']} OpenMP runtimes in one process cost up to 70 times: "
            "set MKL_THREADING_LAYER=GNU, or remove the package that brings the second"
        )
    held = [name for name in HOLD_BACK if any(v.startswith(f"{name}=") for v in facts.get("environment", ()))]
    if held:
        yield f"{' and '.join(held)} may hold the dense baseline back: unset {'it' if len(held) == 1 else 'them'}"
    cores = facts.get("cores_allowed", 1)
    load = (facts.get("load") or [0.0])[0]
    if load > 0.5 * cores:
        yield f"load is {load:g} on {cores} cores: stop other work, then measure"
    quota = facts.get("cpu_quota")
    if quota is not None and quota < cores:
        fits = max(1, int(quota))
        yield f"the cgroup grants {quota:g} of {cores} cores, in bursts: run with --threads {fits}"


def _disturbs(facts: Facts) -> Iterator[str]:
    """What moves timings by some per cent."""
    if facts.get("steal_now", 0.0) > 0.02:
        yield f"the hypervisor took {facts['steal_now']:.0%} of the time just now: measure when it is quieter"
    if facts.get("governor") not in ("", None, "performance"):
        yield f"governor is {facts['governor']}: sudo cpupower frequency-set --governor performance"
    if facts.get("clocksource") not in ("", None, "tsc", "arch_sys_counter", "kvm-clock"):
        yield f"clocksource {facts['clocksource']} is slow to read: boot with clocksource=tsc if it is stable"
    if facts.get("swap_used_gib", 0) and facts.get("memory_available_gib", 9) < 2:
        yield "memory is short and swap is in use: close something, or results time the disk"
    if facts.get("numa_nodes", 1) > 1:
        nodes = facts["numa_nodes"]
        yield f"{nodes} NUMA nodes: stay on one, numactl --cpunodebind=0 --membind=0 sparsebench run …"
    if facts.get("huge_pages") == "never":
        yield "transparent huge pages are off: kernels that stream memory are slower than they could be"


def _limits(facts: Facts) -> Iterator[str]:
    """What narrows what can be measured here."""
    if facts.get("cores_allowed", 2) == 1:
        yield "only one core is allowed: the parent shares it with the workers, so more rounds are dropped"
    if facts.get("machine") == "x86_64" and "avx2" not in facts.get("isa", ["avx2"]):
        yield "this CPU has no AVX2: kernels run their portable code, which nobody tunes"
    limit = facts.get("memory_limit_gib")
    if limit is not None and limit < 4:
        yield f"the cgroup grants {limit:g} GiB: ResNet-18 training steps may end as oom"


def _lacks(facts: Facts) -> Iterator[str]:
    """What is not installed."""
    if facts.get("quarantined"):
        yield f"{len(facts['quarantined'])} plugin(s) quarantined: sparsebench list plugins"
    if facts.get("backends_missing"):
        names = ", ".join(line.partition(":")[0] for line in facts["backends_missing"])
        yield f"not competing: {names}; sparsebench list backends says what each needs"
    if not facts.get("data_root"):
        yield "SPARSEBENCH_DATA is not set: `digits` and `noise` work, other data sets need it, or --download"
    elif not facts.get("data_found"):
        yield f"SPARSEBENCH_DATA={facts['data_root']} is empty or not there: put data sets into it"
