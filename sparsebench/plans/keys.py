"""What must be equal for a plan to hold: the problem, the kind of machine, and the code that was measured."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Mapping
from functools import cache

from sparsebench import host
from sparsebench.discovery import package_hash
from sparsebench.plans.records import Code
from sparsebench.problem import Problem

SPARSITIES = (0.0, 0.3, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.93, 0.95, 0.97, 0.98, 0.99, 0.995, 0.999)
OWN_PLUGINS = "sparsebench.builtin."
OWN_KERNELS = ("sparsebench.builtin/backends/", "sparsebench.kernels/")


def problem_key(problem: Problem) -> str:
    """'linear 1024->1024 batch 128 float32 threads 1 uniform 0.9'; of a geometry what is not the usual."""
    p = problem
    text = f"{p.op} {p.in_features}->{p.out_features}"
    if p.op == "conv2d":
        text += f" {_pair(p.kernel_size)} on {p.height}x{p.width}"
        for name, pair, usual in (("stride", p.stride, 1), ("padding", p.padding, 0), ("dilation", p.dilation, 1)):
            text += f" {name} {_pair(pair)}" if pair != (usual, usual) else ""
        text += f" groups {p.groups}" if p.groups != 1 else ""
    kind = p.pattern.partition(":")[0]
    return f"{text} batch {p.batch} {p.dtype} threads {p.threads} {kind} {sparsity_class(p.sparsity):g}"


def _pair(pair: tuple[int, int]) -> str:
    return f"{pair[0]}x{pair[1]}"


def sparsity_class(sparsity: float) -> float:
    """The nearest of `SPARSITIES`, by the ratio of what is kept: 0.9 stands for 0.878 to 0.916."""
    kept = math.log(max(1 - sparsity, 1e-9))
    return min(SPARSITIES, key=lambda each: abs(math.log(1 - each) - kept))


def variant(backend: str, options: Mapping[str, object] | None) -> str:
    """The name that runs a backend with more options: 'cpp@isa=avx2,tile=4'."""
    name, _, fixed = backend.partition("@")
    chosen = dict(part.split("=", 1) for part in fixed.split(",") if part)
    chosen |= {key: str(value) for key, value in (options or {}).items()}
    text = options_text(chosen)
    return f"{name}@{text}" if text else name


def options_text(options: Mapping[str, object]) -> str:
    """'isa=avx2,tile=4', in alphabetical order."""
    return ",".join(f"{key}={value}" for key, value in sorted(options.items()))


def code_of(module: str) -> Code:
    """The hash of the code that a backend's module stands for: our kernels, or the package (or file) it is in.

    Of other people's modules only one that has been imported has a hash.
    """
    return Code(module, _own_kernels() if module.startswith(OWN_PLUGINS) else package_hash(module))


def is_current(code: Code) -> bool:
    """Whether the code that was measured is the code that is here."""
    return bool(code.sha256) and code == code_of(code.module)


def machine() -> dict[str, str]:
    """The kind of machine as text: equal ones share plans."""
    return {**_processor(), "isa": os.environ.get("SPARSEBENCH_ISA", "")}


@cache
def _processor() -> dict[str, str]:
    info = host.cpu_info()
    return {
        "cpu": info.get("model name", ""),
        "cpu_id": "-".join(info.get(key, "?") for key in ("vendor_id", "cpu family", "model", "stepping")),
        "flags_sha256": hashlib.sha256(" ".join(sorted(host.cpu_flags())).encode()).hexdigest(),
        "caches": " ".join(f"{level}={size}" for level, size in sorted(host.caches().items())),
    }


@cache
def _own_kernels() -> str:
    return host.code_hash(*OWN_KERNELS)
