"""Speedups as targets of accuracy cases: the table of measured times, and what the trained model then comes to."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sparsebench.errors import InvariantError, UsageError
from sparsebench.harness.cases.base import Order
from sparsebench.pruning.host import Host
from sparsebench.pruning.kernels import Kernels
from sparsebench.pruning.latency import LAYOUTS, LatencyTable, in_layout, laid_out, measure_latency, on_backend
from sparsebench.pruning.masks import apply_masks, prunable, top_k_mask
from sparsebench.pruning.stopwatch import Probed, contest
from sparsebench.pruning.target import check_allocator
from sparsebench.verify import compare_models

SHARED = ("model", "dataset", "normalise", "checkpoint", "batch", "threads", "backend", "exclude")
ROUNDS = 11


def asked(parameters: Mapping[str, Any]) -> float | None:
    """The speedup that a cell asks for; None if it asks for a sparsity, or for the model as it is."""
    times = float(parameters.get("speedup", 1.0))
    return times if times > 1 else None


def prunes(parameters: Mapping[str, Any]) -> bool:
    """Whether the cell is no reference."""
    return float(parameters["sparsity"]) > 0 or asked(parameters) is not None


def reads_weights(order: Order) -> bool:
    """Whether how much every layer keeps depends on the weights, which must be trained ones then."""
    allocator, p = order.made("allocator"), order.parameters
    competes = asked(p) is not None and getattr(allocator, "scope", "layer") == "model"
    return prunes(p) and (competes or bool(getattr(allocator, "reads_weights", False)))


def decides_after(order: Order) -> bool:
    """Whether the method first prunes when training is over; a gradual variant of a one-shot method does not."""
    options = order.options.get("method") or {}
    return order.entries["method"].spec.kind == "one-shot" and not options.get("gradual", False)


def is_late(order: Order) -> bool:
    """Whether that is found of the trained model, before its method compresses it."""
    return reads_weights(order) and decides_after(order)


def is_open(order: Order) -> bool:
    """Whether it takes too long, or needs a table, to be found before the case is run."""
    return asked(order.parameters) is not None or reads_weights(order)


def check_case(order: Order) -> None:
    """Raise `UsageError` for a case whose layers' budgets can never be found."""
    p, spec = order.parameters, order.entries["method"].spec
    if asked(p) is not None:
        check_allocator(order.made("allocator"))
        if getattr(order.made("backend"), "dense", False):
            raise UsageError(f"backend = {p['backend']!r} computes dense layers; a speedup needs a sparse one")
    if reads_weights(order) and "checkpoint" not in p and (not decides_after(order) or int(p["epochs"]) == 0):
        raise UsageError(
            f"allocator {p['allocator']} looks at the weights, and {spec.name} asks for budgets before they are "
            "trained; give the case a checkpoint"
        )


def masks_to_try(host: Host) -> dict[str, Tensor]:
    """By magnitude at the case's sparsity; half of every layer where that is found later."""
    scores = {name: weight.abs() for name, weight in host.ctx.prunable.items()}
    if host.late:
        return {name: top_k_mask(score, max(1, score.numel() // 2)) for name, score in scores.items()}
    return host.ctx.select(scores)


def table_of(order: Order, model: nn.Module, kernels: Kernels) -> LatencyTable:
    """The case's table, measured once for all its methods, seeds and speedups; kept beside the run."""
    given = {key: order.parameters.get(key) for key in SHARED}
    digest = hashlib.sha256(json.dumps([given, torch.get_num_threads()], sort_keys=True).encode()).hexdigest()[:24]
    file = order.state.parent / f"{digest}.latency"
    if not file.exists():
        names = list(prunable(model, order.parameters.get("exclude", ())))
        precision = order.entries["backend"].spec.precision
        table = measure_latency(model, names, kernels.example_input, kernels.backend, precision)
        file.parent.mkdir(exist_ok=True)
        part = Path(f"{file}.{os.getpid()}.part")
        part.write_text(json.dumps(table.to_json()))
        part.replace(file)
    return LatencyTable.from_json(json.loads(file.read_text()))


def measured(
    model: nn.Module, masks: Mapping[str, Tensor], table: LatencyTable, kernels: Kernels, precision: str
) -> dict[str, float]:
    """What was promised for these masks, and what comes of it against the dense model in either layout.

    Metrics `speedup_promised`, `speedup_measured` (of medians), `speedup_low` and `speedup_high` (quartiles of
    rounds). `model` is dense with its masks applied. Raises `InvariantError` if the logits differ.
    """
    inputs, names = kernels.example_input, tuple(masks)
    model = copy.deepcopy(model).eval()
    apply_masks(model, masks)
    layouts = LAYOUTS if inputs.dim() == 4 else LAYOUTS[:1]
    x = laid_out(inputs, table.layout)
    sparse = on_backend(model, masks, table, x, kernels.backend)
    with torch.no_grad():
        finding = compare_models("logits of the timed model", [sparse(x)], [model(inputs)], precision, 50.0)
    if not finding.ok:
        raise InvariantError("latency", str(finding.reason))
    runs = {name: Probed(in_layout(copy.deepcopy(model), name), laid_out(inputs, name), names) for name in layouts}
    laps = contest({**runs, "sparse": Probed(sparse, x, names)}, ROUNDS)
    best = min(layouts, key=lambda name: statistics.median(laps[name]))
    ratios = [dense / pruned for dense, pruned in zip(laps[best], laps["sparse"], strict=True)]
    low, _, high = statistics.quantiles(ratios, n=4)
    return {
        "speedup_promised": table.speedup({name: 1 - int(m.sum()) / m.numel() for name, m in masks.items()}),
        "speedup_measured": statistics.median(laps[best]) / statistics.median(laps["sparse"]),
        "speedup_low": low,
        "speedup_high": high,
    }
