"""What this machine is: a stable fingerprint that decides which runs may be compared, and volatile notes."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import platform
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

# What a kernel may be compiled for or dispatch on; the rest of the flags only counts through its hash.
FLAGS_THAT_MATTER = (
    "sse4_2", "avx", "f16c", "fma", "avx2", "bmi2", "avx_vnni", "avx512f", "avx512bw", "avx512dq",
    "avx512vl", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_tile", "amx_bf16", "amx_int8", "asimd",
    "sve", "sve2", "bf16",
)  # fmt: skip
LIBRARIES = (
    "torch", "numpy", "scipy", "mkl", "numba", "sparseprop", "scikit-learn", "intel-openmp", "safetensors",
)  # fmt: skip
PACKAGES = ("sparsebench", "sparsebench.builtin", "sparsebench.kernels", "sparsebench.suites")
# Variables that choose instruction sets, thread runtimes or allocators, and so move timings without a trace.
TUNING = re.compile(r"(ATEN|DNNL|ONEDNN|MKL|OMP|GOMP|KMP|OPENBLAS|MALLOC)_.+|LD_PRELOAD|GLIBC_TUNABLES")
CPU = Path("/sys/devices/system/cpu")


def fingerprint() -> dict[str, Any]:
    """What must be equal for two runs to be judged; changes only with hardware or installation."""
    import psutil

    info = cpu_info()
    return {
        "cpu": info.get("model name", "") or platform.processor() or platform.machine(),
        "cpu_id": "-".join(info.get(key, "?") for key in ("vendor_id", "cpu family", "model", "stepping")),
        "flags": [flag for flag in FLAGS_THAT_MATTER if flag in cpu_flags()],
        "flags_sha256": hashlib.sha256(" ".join(sorted(cpu_flags())).encode()).hexdigest(),
        "caches": caches(),
        "cores_online": psutil.cpu_count() or 1,
        "cores_allowed": len(cores_allowed()),
        "cpu_quota": cpu_quota(),
        "numa_nodes": max(1, len(list(Path("/sys/devices/system/node").glob("node[0-9]*")))),
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "machine": platform.machine(),
        "system": platform.system(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "libraries": libraries(),
    }


def volatile() -> dict[str, Any]:
    """What may differ from run to run on one machine: clocks, load, memory. Nothing names machine or user."""
    import psutil

    memory = psutil.virtual_memory()
    times = psutil.cpu_times()
    return {
        "mhz": clock_mhz(),
        "governor": read(CPU / "cpu0/cpufreq/scaling_governor"),
        "load": [round(value, 2) for value in os.getloadavg()],
        "memory_available": memory.available,
        "memory_limit": memory_limit(),
        "swap_used": psutil.swap_memory().used,
        "steal_share": round(getattr(times, "steal", 0.0) / max(sum(times), 1.0), 5),
        "boot_time": int(psutil.boot_time()),
        "kernel": platform.release(),
        "microcode": cpu_info().get("microcode", ""),
        "hypervisor": "hypervisor" in cpu_flags(),
        "clocksource": read(Path("/sys/devices/system/clocksource/clocksource0/current_clocksource")),
        "huge_pages": _chosen(read(Path("/sys/kernel/mm/transparent_hugepage/enabled"))),
        "environment": tuning_environment(),
    }


def tuning_environment() -> dict[str, str]:
    """The inherited environment variables that change timings; of a path only its last part, which names no user."""
    chosen = {name: value for name, value in sorted(os.environ.items()) if TUNING.fullmatch(name)}
    return {name: re.sub(r"(?<![^\s:;,=])/(?:[^\s:;,]*/)?", "", value) for name, value in chosen.items()}


def libraries() -> dict[str, str]:
    """Version of each library that can change a timing, as installed; nothing is imported."""
    from importlib import metadata

    found = {}
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def code_hash(*parts: str) -> str:
    """SHA-256 over the installed package's .py and compiled files; equal files give it in any install.

    With `parts` over those alone whose names begin with one of them: "sparsebench.kernels/".
    """
    files = _code_files()
    return hash_files({name: path for name, path in files.items() if name.startswith(parts or "")})


def hash_files(files: Mapping[str, Path]) -> str:
    """SHA-256 over files, each under the name that counts: equal names and contents give it in any folder."""
    digest = hashlib.sha256()
    for name, path in sorted(files.items()):
        digest.update(f"{name}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def git_state(folder: str | Path) -> dict[str, Any]:
    """{commit, branch, dirty} of the checkout around `folder`; {} without git, a checkout or a commit."""
    commit = _git(folder, "rev-parse", "HEAD")
    if not commit:
        return {}
    dirty = _git(folder, "status", "--porcelain", "--untracked-files=no")
    return {
        "commit": commit,
        "branch": _git(folder, "rev-parse", "--abbrev-ref", "HEAD") or "",
        "dirty": bool(dirty),
    }


def own_git_state() -> dict[str, Any]:
    """`git_state` of the checkout that sparsebench runs from; {} unless it is installed as an editable checkout."""
    from importlib import metadata
    from urllib.parse import urlsplit
    from urllib.request import url2pathname

    try:
        origin = json.loads(metadata.distribution("sparsebench").read_text("direct_url.json") or "{}")
    except (metadata.PackageNotFoundError, ValueError):
        return {}
    if not origin.get("dir_info", {}).get("editable"):
        return {}
    folder = url2pathname(urlsplit(origin.get("url", "")).path)
    if _git(folder, "ls-files", "--error-unmatch", "pyproject.toml") is None:  # a plain folder in another repository
        return {}
    return git_state(folder)


@cache
def cpu_info() -> dict[str, str]:
    """The first processor's lines of /proc/cpuinfo; empty where there is no such file."""
    lines = read(Path("/proc/cpuinfo")).split("\n\n", 1)[0].splitlines()
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}


@cache
def cpu_flags() -> frozenset[str]:
    """The CPU's feature flags under the names of /proc/cpuinfo."""
    return frozenset((cpu_info().get("flags") or cpu_info().get("Features", "")).split())


def caches() -> dict[str, str]:
    """Size of each cache as core 0 sees it and how many cores share it: {"L1d": "32K", "L3": "32768K/2"}."""
    found = {}
    for index in sorted((CPU / "cpu0/cache").glob("index[0-9]*")):
        kind = {"Data": "d", "Instruction": "i"}.get(read(index / "type"), "")
        shared = len(_cpu_list(read(index / "shared_cpu_list")))
        found[f"L{read(index / 'level')}{kind}"] = read(index / "size") + (f"/{shared}" if shared > 1 else "")
    return found


def cores_allowed() -> list[int]:
    """The cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def cores_apart() -> list[int]:
    """Of `cores_allowed` those of which no two are threads of one physical core, as far as the system says."""
    apart: list[int] = []
    for core in cores_allowed():
        siblings = _cpu_list(read(CPU / f"cpu{core}" / "topology" / "thread_siblings_list"))
        if not set(siblings) & set(apart):
            apart.append(core)
    return apart


def cpu_quota() -> float | None:
    """How many cores' worth of time the cgroup grants; None without a limit."""
    limits = []
    for folder in _cgroup_folders("cpu"):
        quota, _, period = read(folder / "cpu.max").partition(" ")
        quota = quota or read(folder / "cpu.cfs_quota_us")
        period = period or read(folder / "cpu.cfs_period_us") or "100000"
        if quota.isdigit() and int(quota) > 0:
            limits.append(int(quota) / int(period))
    return round(min(limits), 3) if limits else None


def memory_limit() -> int | None:
    """Bytes of memory the cgroup grants; None without a limit."""
    import psutil

    limits = []
    for folder in _cgroup_folders("memory"):
        text = read(folder / "memory.max") or read(folder / "memory.limit_in_bytes")
        if text.isdigit() and int(text) < psutil.virtual_memory().total:
            limits.append(int(text))
    return min(limits, default=None)


def clock_mhz() -> list[int]:
    """The clock of each core in MHz as the kernel reports it now; [] where it does not say."""
    lines = [line for line in read(Path("/proc/cpuinfo")).splitlines() if line.startswith("cpu MHz")]
    return [round(float(line.split(":")[1])) for line in lines]


def read(path: Path) -> str:
    """A small file's text without the surrounding blanks; '' if it cannot be read."""
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _chosen(text: str) -> str:
    """'madvise' of 'always [madvise] never'."""
    return text.partition("[")[2].partition("]")[0]


def _cpu_list(text: str) -> list[int]:
    """The numbers of '0-3,8'."""
    cores: list[int] = []
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        cores.extend(range(int(first), int(last or first) + 1))
    return cores


def _cgroup_folders(controller: str) -> list[Path]:
    """The folders whose limits hold for this process, innermost first: cgroup v2, or v1 of one controller."""
    folders = []
    for line in read(Path("/proc/self/cgroup")).splitlines():
        _, names, path = line.split(":", 2)
        if names and controller not in names.split(","):
            continue
        root = Path("/sys/fs/cgroup") / names
        inner = root / path.lstrip("/")
        folders += [folder for folder in (inner, *inner.parents) if folder.is_relative_to(root)]
    return folders


def _code_files() -> dict[str, Path]:
    """Name within the package -> file. In an editable install the parts lie in different folders."""
    found: dict[str, Path] = {}
    for package in PACKAGES:
        spec = importlib.util.find_spec(package)
        if spec is None or spec.origin is None:
            continue
        # Only the top package's own folder: an editable install also lists the checkout there.
        folders = [Path(spec.origin).parent]
        folders += [Path(f) for f in spec.submodule_search_locations or [] if package != PACKAGES[0]]
        parts = {name.rpartition(".")[2] for name in PACKAGES[1:]} if package == PACKAGES[0] else set()
        for folder in folders:
            for path in folder.rglob("*"):
                place = path.relative_to(folder)
                if path.suffix in (".py", ".so", ".pyd") and place.parts[0] not in parts:
                    found.setdefault(f"{package}/{place.as_posix()}", path)
    return found


def _git(folder: str | Path, *words: str) -> str | None:
    import subprocess

    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *words], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
