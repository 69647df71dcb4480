"""What every layer of a model costs at every level of sparsity on a backend: a table of measured milliseconds.

A layer alone costs something else than in its model, where its input was written a moment ago. So whole models are
run, one for each level with every layer pruned to it, in turn; layers are timed inside them by hooks, and what is
left of a model's time is its rest.
"""

from __future__ import annotations

import copy
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from sparsebench.errors import BudgetError, InvariantError
from sparsebench.nn import sparse_layers, sparsify
from sparsebench.pruning.masks import apply_masks, top_k_mask
from sparsebench.pruning.stopwatch import Probed, Times, race
from sparsebench.pruning.weights import layer_of
from sparsebench.verify import compare_models

if TYPE_CHECKING:
    from sparsebench.nn.backends import BackendHandle
    from sparsebench.plugin import Backend

# The densities of the published tables, at half as many places: the least of them is where layers cease to get faster.
DENSITIES = tuple(float(density) for density in np.geomspace(0.6, 0.01, 22))
LATENCY_LEVELS = (0.0, *(1 - density for density in DENSITIES))
LAYOUTS = ("nchw", "channels-last")
ROUNDS = 5


@dataclass(frozen=True)
class LatencyTable:
    """Milliseconds of one batch; `layers` by weight and level. None costs more than dense, as it may run so.

    `dense` is the whole dense model in the better of torch's layouts, which `layout` names; sparse ones run in it too.
    """

    sparsities: tuple[float, ...]  # of the levels, rising; the first is 0
    layers: Mapping[str, tuple[float, ...]]
    rest: float  # of everything that is no prunable layer
    dense: float
    layout: str = LAYOUTS[0]

    def layer(self, name: str, sparsity: float) -> float:
        """Milliseconds of a layer, on the line between two levels; denser than all of them it runs dense."""
        times = self.layers[name]
        if sparsity < self.sparsities[1]:
            return times[0]
        return float(np.interp(sparsity, self.sparsities[1:], times[1:]))

    def is_worth(self, name: str, sparsity: float) -> bool:
        """Whether a layer at this sparsity is faster on the backend than dense."""
        return self.layer(name, sparsity) < self.layers[name][0]

    def total(self, shares: Mapping[str, float]) -> float:
        """Milliseconds of the model whose layers have these sparsities; a layer that is not named is dense."""
        return self.rest + sum(self.layer(name, shares.get(name, 0.0)) for name in self.layers)

    def speedup(self, shares: Mapping[str, float]) -> float:
        """How much faster than the dense model that is."""
        return self.dense / self.total(shares)

    def budget(self, speedup: float) -> float:
        """Milliseconds that the prunable layers may take together; below 0 if the rest alone takes too long."""
        return self.dense / speedup - self.rest

    def check(self, speedup: float, fastest: Mapping[str, float], who: str) -> None:
        """Raise `BudgetError`, saying the best that `who` reaches, if its `fastest` shares are too slow."""
        best = self.speedup(fastest)
        if best < speedup:
            raise BudgetError(
                f"a speedup of {speedup:g} cannot be reached: {who} comes to {best:.2f} with every layer as fast as it "
                f"gets (dense {self.dense:.3g} ms, of which {self.rest:.3g} ms no layer to prune); ask for less"
            )

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            **vars(self),
            "sparsities": list(self.sparsities),
            "layers": {n: list(t) for n, t in self.layers.items()},
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> LatencyTable:
        """What `to_json` gave."""
        layers = {name: tuple(times) for name, times in data["layers"].items()}
        return cls(tuple(data["sparsities"]), layers, data["rest"], data["dense"], data["layout"])


def measure_latency(
    model: nn.Module,
    names: Sequence[str],
    inputs: Tensor,
    backend: str | Backend | BackendHandle,
    precision: str = "float32",
    levels: Sequence[float] = LATENCY_LEVELS,
    rounds: int = ROUNDS,
) -> LatencyTable:
    """The table of a model's weights `names` on one batch of `inputs`, in eval mode; `model` stays as it is.

    Repeats of all levels take turns, and of each number the least counts: other work only adds to it.
    Raises `InvariantError` if the backend's logits differ from those of the dense layers.
    """
    model = copy.deepcopy(model).eval()
    layouts = LAYOUTS if inputs.dim() == 4 else LAYOUTS[:1]
    dense = {layout: in_layout(copy.deepcopy(model), layout) for layout in layouts}
    best = race({name: Probed(each, laid_out(inputs, name), names) for name, each in dense.items()}, rounds)
    layout = min(best, key=lambda name: best[name].total)
    x = laid_out(inputs, layout)
    runs: dict[float, Probed] = {0.0: Probed(dense[layout], x, names)}
    for level in levels[1:]:
        runs[level] = Probed(_pruned(model, names, level, layout, x, backend, precision), x, names)
    times = race(runs, rounds)
    rest = statistics.median(times[level].rest for level in levels[1:])
    by_level = {level: _fitted(_with_what_comes_after(times, level), times[level].total - rest) for level in levels}
    layers = {name: _falling([by_level[level][name] for level in levels]) for name in names}
    return LatencyTable(tuple(levels), layers, rest, times[0.0].total, layout)


def _with_what_comes_after(times: Mapping[float, Times], level: float) -> dict[str, float]:
    """Milliseconds of each layer at a level; of a dense one with what it makes of the layers that are not pruned.

    What comes after it (norm, activation, pooling) may take longer when it is dense: in ResNet-20 a tenth of all
    that is no layer. The table's rest is that of sparse models.
    """
    if level > 0:
        return times[level].layers
    sparse = [each for key, each in times.items() if key > 0]
    return {
        name: spent + times[0.0].after[name] - statistics.median(each.after[name] for each in sparse)
        for name, spent in times[0.0].layers.items()
    }


def _fitted(layers: Mapping[str, float], together: float) -> dict[str, float]:
    """Layers in the same proportions that take as long as they did in the whole model.

    On a busy machine a layer finds a quiet moment more easily than a model does: by the least times of its layers the
    dense ResNet-20 took 7 % less than it did, and every promise was 7 % too high.
    """
    scale = together / sum(layers.values())
    return {name: max(scale, 0.0) * spent for name, spent in layers.items()}


def laid_out(inputs: Tensor, layout: str) -> Tensor:
    """The batch in a layout."""
    return inputs.contiguous(memory_format=torch.channels_last) if layout == LAYOUTS[1] else inputs


def in_layout(model: nn.Module, layout: str) -> nn.Module:
    """The model itself, its weights in a layout."""
    return model.to(memory_format=torch.channels_last) if layout == LAYOUTS[1] else model  # type: ignore[call-overload]


def on_backend(
    model: nn.Module,
    masks: Mapping[str, Tensor],
    table: LatencyTable,
    x: Tensor,
    backend: str | Backend | BackendHandle,
) -> nn.Module:
    """A copy of a masked model as the table means it: layers that are faster so on the backend, the others dense."""
    shares = {name: 1 - int(mask.sum()) / mask.numel() for name, mask in masks.items()}
    faster = [name for name, share in shares.items() if name in table.layers and table.is_worth(name, share)]
    return _placed(copy.deepcopy(model).eval(), table.layout, masks, x, backend, faster)


def _pruned(
    model: nn.Module, names: Sequence[str], level: float, layout: str, x: Tensor, backend: Any, precision: str
) -> nn.Module:
    """A copy with every layer at one level by magnitude, on the backend, and found to be right there."""
    model = copy.deepcopy(model)
    weights = {name: layer_of(model, name).weight for name in names}
    masks = {name: top_k_mask(w.abs(), max(1, round((1 - level) * w.numel()))) for name, w in weights.items()}
    apply_masks(model, masks)
    with torch.no_grad():
        right = model(x)
        made = _placed(model, layout, masks, x, backend, names)
        finding = compare_models(f"logits at a sparsity of {level:.3g}", [made(x)], [right], precision, 50.0)
    if not finding.ok:
        raise InvariantError("latency", str(finding.reason))
    return made


def _placed(
    model: nn.Module, layout: str, masks: Mapping[str, Tensor], x: Tensor, backend: Any, names: Sequence[str]
) -> nn.Module:
    """The model itself in a layout, its layers `names` on the backend."""
    chosen = {name: mask if name in names else torch.ones_like(mask) for name, mask in masks.items()}
    every = {
        f"{name}.weight".lstrip("."): torch.ones_like(module.weight, dtype=torch.bool)
        for name, module in model.named_modules()
        if type(module) in (nn.Linear, nn.Conv2d)
    }
    model = sparsify(
        in_layout(model, layout), example_input=x, backend=backend, masks={**every, **chosen}, min_sparsity=1e-9
    )
    if layout == LAYOUTS[1]:
        for layer in sparse_layers(model).values():
            layer.register_forward_hook(_handed_on)
    return model


def _handed_on(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
    """What a sparse layer hands on in a channels-last model is so too: of images of one channel it cannot see it.

    The pooling after LeNet-5's first convolution takes twelve times as long otherwise.
    """
    return output.contiguous(memory_format=torch.channels_last) if output.dim() == 4 else output


def _falling(times: Sequence[float]) -> tuple[float, ...]:
    """Dense, then the levels made to fall, none above dense.

    What is pruned further is never slower: where it seems to be, that is noise, and neighbours share their mean (the
    nearest falling sequence by least squares). An allocator would else pick the levels that luck made fast.
    """
    blocks: list[tuple[float, int]] = []
    for value in times[1:]:
        blocks.append((value, 1))
        while len(blocks) > 1 and blocks[-2][0] < blocks[-1][0]:
            (one, n), (other, m) = blocks[-2:]
            blocks[-2:] = [((one * n + other * m) / (n + m), n + m)]
    return (times[0], *(min(times[0], value) for value, count in blocks for _ in range(count)))
