"""Which channels of a network belong together, found by following its graph; what cannot be followed is refused.

A *space* is the set of channels that some tensors share: those on both sides of a norm or a ReLU, and all that a
residual sum adds up. Whoever removes a channel removes it from a whole space.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from sparsebench.plugin import BudgetError

POOLS = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)
POINTWISE = (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Hardswish, nn.Tanh, nn.Sigmoid, nn.Identity,
             nn.Dropout, nn.Dropout2d, *POOLS)  # fmt: skip
NAMED = frozenset({"relu", "relu_", "relu6", "leaky_relu", "elu", "gelu", "silu", "hardswish", "tanh", "sigmoid",
                   "dropout", "contiguous", "max_pool2d", "avg_pool2d", "adaptive_avg_pool2d",
                   "adaptive_max_pool2d"})  # fmt: skip
ADD = (operator.add, operator.iadd, torch.add)
IMAGE, ROWS, FLATTENED = "image", "rows", "flattened"  # [N, C, H, W], [N, C], and the first as [N, C·H·W]


class Tensors(NamedTuple):
    """What flows along an edge of the graph."""

    space: int
    kind: str  # "" for the network's input


class Layer(NamedTuple):
    """A Linear or Conv2d; every input channel has `positions` neighbouring columns, more than 1 after a flatten."""

    inputs: int  # spaces
    outputs: int
    positions: int


class Pad(NamedTuple):
    """The space `large` is `small` with zero channels, `before` of them in front."""

    small: int
    large: int
    before: int


class Channels:
    """`layers` by weight name, the `width` of every space, `pads`, and `whole` spaces: the input's and the output's.

    Made for networks of Linear, Conv2d, batch norms, pointwise functions, pools, flatten, sums and padded shortcuts.
    Raises `BudgetError` naming the first thing that is none of them.
    """

    def __init__(self, model: nn.Module) -> None:
        self.layers: dict[str, Layer] = {}
        self.width: dict[int, int] = {}
        self.whole: set[int] = set()
        self.pads: list[Pad] = []
        self._above: list[int] = []  # of every space the one it was joined to, or itself
        self._modules = dict(model.named_modules())
        try:
            graph = fx.Tracer().trace(model)
        except Exception as error:  # whatever the model's own code raises when it runs on proxies
            raise BudgetError(f"small-dense cannot follow {type(model).__name__}: {error}") from error
        found: dict[fx.Node, Tensors] = {}
        for node in graph.nodes:
            found[node] = self._visit(node, [found.get(arg) for arg in node.args if isinstance(arg, fx.Node)])
        self._settle()

    def _visit(self, node: fx.Node, given: list[Tensors | None]) -> Tensors:
        before = [each for each in given if each is not None]
        if node.op == "placeholder":
            space = self._new()
            self.whole.add(space)
            return Tensors(space, "")
        if node.op == "output" and len(before) == 1:
            self.whole.add(before[0].space)
            return before[0]
        if node.op == "call_module" and len(before) == 1:
            return self._module(node, self._modules[str(node.target)], before[0])
        if node.op in ("call_function", "call_method") and before:
            return self._function(node, before)
        raise refused(node, "is not followed")

    def _module(self, node: fx.Node, module: nn.Module, x: Tensors) -> Tensors:
        if type(module) in (nn.Linear, nn.Conv2d):
            return self._layer(node, module, x)
        if isinstance(module, nn.Flatten) and (module.start_dim, module.end_dim) == (1, -1):
            return flattened(x)
        if isinstance(module, _BatchNorm) and x.kind in (IMAGE, ROWS):
            if module.num_features == self.width[self._root(x.space)]:
                return x
        elif isinstance(module, POINTWISE) and (x.kind == IMAGE or not isinstance(module, POOLS)):
            return x
        raise refused(node, f"is a {type(module).__name__}, which may mix channels")

    def _layer(self, node: fx.Node, module: Any, x: Tensors) -> Tensors:
        name, image = f"{node.target}.weight", isinstance(module, nn.Conv2d)
        columns = module.weight.shape[1]
        if image and module.groups != 1:
            raise refused(node, "is a convolution with groups")
        if x.kind:
            width = self.width[self._root(x.space)]
            if (x.kind == IMAGE) != image or columns % width or (x.kind == ROWS and columns != width):
                raise refused(node, f"takes {columns} columns from {width} channels")
            positions = columns // width
        elif self.width[x.space] in (0, columns):
            self.width[x.space], positions = columns, 1  # all of the input is kept: a column is as good as a channel
        else:
            raise refused(node, "takes the network's input as another layer does not")
        if name in self.layers:  # used again: both uses see the same weights
            self._join(node, self.layers[name].inputs, x.space)
            return Tensors(self.layers[name].outputs, IMAGE if image else ROWS)
        outputs = self._new(module.weight.shape[0])
        self.layers[name] = Layer(x.space, outputs, positions)
        return Tensors(outputs, IMAGE if image else ROWS)

    def _function(self, node: fx.Node, given: list[Tensors]) -> Tensors:
        x, rest, target = given[0], cast(tuple[Any, ...], node.args[1:]), cast(Any, node.target)
        name = getattr(target, "__name__", target)
        if target in ADD and not node.kwargs:
            for other in given[1:]:
                if other.kind != x.kind:
                    raise refused(node, f"adds {other.kind} to {x.kind}")
                self._join(node, x.space, other.space)
            return x
        if len(given) == 1 and name in NAMED and (x.kind == IMAGE or "pool" not in name):
            return x
        if name == "flatten" and (rest, dict(node.kwargs)) in (((1,), {}), ((), {"start_dim": 1})):
            return flattened(x)
        if name == "getitem" and x.kind == IMAGE and isinstance(rest[0], tuple) and rest[0][:2] == (slice(None),) * 2:
            return x
        if name == "pad" and x.kind == IMAGE and node.kwargs.get("value") in (None, 0) and len(sizes := rest[0]) >= 4:
            if len(sizes) == 4:
                return x
            if len(sizes) == 6 and min(sizes[4:]) >= 0:
                large = self._new(self.width[self._root(x.space)] + sizes[4] + sizes[5])
                self.pads.append(Pad(x.space, large, sizes[4]))
                return Tensors(large, IMAGE)
        raise refused(node, "is not followed")

    def _new(self, width: int = 0) -> int:
        self._above.append(len(self._above))
        self.width[self._above[-1]] = width
        return self._above[-1]

    def _root(self, space: int) -> int:
        while self._above[space] != space:
            space = self._above[space]
        return space

    def _join(self, node: fx.Node, one: int, other: int) -> None:
        one, other = self._root(one), self._root(other)
        if self.width[one] != self.width[other]:
            raise refused(node, f"joins {self.width[one]} and {self.width[other]} channels")
        self._above[other] = one

    def _settle(self) -> None:
        """Have everything name spaces that are joined by one number."""
        root = self._root
        self.layers = {n: Layer(root(x.inputs), root(x.outputs), x.positions) for n, x in self.layers.items()}
        self.pads = [Pad(root(pad.small), root(pad.large), pad.before) for pad in self.pads]
        self.whole = {root(space) for space in self.whole}
        self.width = {space: width for space, width in self.width.items() if root(space) == space}

    def keep_whole(self, names: Collection[str]) -> None:
        """Leave these layers as they are: the spaces before and after them, and what padding ties to a whole one."""
        for name in names:
            self.whole |= {self.layers[name].inputs, self.layers[name].outputs} if name in self.layers else set()
        for _ in self.pads:
            for pad in self.pads:
                if {pad.small, pad.large} & self.whole:
                    self.whole |= {pad.small, pad.large}

    def kept(self, count: Callable[[int], int]) -> dict[int, Tensor]:
        """Which channels of every space stay [int64, in order], where `count` says how many of a width.

        The first ones; behind a padding those that were kept before it, with as many zeros on either side as a
        narrower network would have there: a channel that was removed must not come back as one of those zeros.
        """
        counts = {space: width if space in self.whole else count(width) for space, width in self.width.items()}
        kept = {space: torch.arange(number) for space, number in counts.items()}
        padded: set[int] = set()
        for pad in self.pads:
            zeros, more = self.width[pad.large] - self.width[pad.small], counts[pad.large] - counts[pad.small]
            before = pad.before * more // zeros if zeros else 0
            behind = pad.before + self.width[pad.small]
            here = torch.cat([
                torch.arange(pad.before - before, pad.before),
                pad.before + kept[pad.small],
                torch.arange(behind, behind + more - before),
            ])  # fmt: skip
            if pad.large in padded and not torch.equal(kept[pad.large], here):
                raise BudgetError("small-dense cannot make this network narrower: two shortcuts pad differently")
            kept[pad.large] = here
            padded.add(pad.large)
        return kept


def flattened(x: Tensors) -> Tensors:
    """Images become rows, with every channel's positions side by side."""
    return Tensors(x.space, FLATTENED) if x.kind == IMAGE else x


def refused(node: fx.Node, why: str) -> BudgetError:
    """The error that names a part of the network."""
    return BudgetError(
        f"small-dense cannot make this network narrower: {getattr(node.target, '__name__', node.target)} {why}; "
        "use another method"
    )
