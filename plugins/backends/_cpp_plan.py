"""How `cpp` computes a problem: layout, tile and blocks, from a small cost model of one core's caches and loops.

Costs are cycles per non-zero and vector of lanes. A sum in registers takes one load per fused multiply-add: two a cycle
from L1, one from L2. A block of planes keeps its part of the packed input in L1, but makes every row begin once more:
its sums are loaded and stored, and the end of a short loop is mispredicted.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from sparsebench.plugin import Problem

ALL = 2**30  # planes of a block that never ends
BLOCKS = (8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, ALL)
L1_SHARE = 0.94  # that a block may take of L1
FROM_L1, FROM_L2 = 0.5, 1.0  # cycles per load of a vector
CROWDED = 0.6  # more from L2, for a block of half its size: weights and results pass through it, too
PER_NON_ZERO = 1.0  # cycles for its index, its value and the loop
PER_ROW = 24.0  # cycles for the loop that ends, beside two for each vector of sums
WASTE = 1.25  # lanes without an image, as a factor of time, that aligned loads make up for
SMALL_BATCH = 2  # vectors x, one after the other, read the whole weight each
PASS_LANES = 16  # what a pass over the weight costs beside its lanes: indices, values, loops
REBIND = 1.5  # times longer than a problem's own plan takes: then it is bound anew


@dataclass(frozen=True)
class Plan:
    """What `kernels/cpp/layer.h` calls a plan, and up to how many bytes a packing is kept for backward."""

    tile: int  # vectors of lanes
    images: int  # packed side by side: a multiple of the lanes, or 1 (flat)
    forward_block: int  # planes
    backward_block: int
    most_saved: int

    def describe(self) -> str:
        """Short text for a note: 'tile 8, 8 images, blocks of 32'."""
        blocks = ["all" if block >= ALL else str(block) for block in (self.forward_block, self.backward_block)]
        return f"tile {self.tile}, {self.images} images, blocks of {'/'.join(dict.fromkeys(blocks))}"


def choose_plan(problem: Problem, density: float, lanes: int, most_vectors: int) -> Plan:
    """The plan for a problem on vectors of `lanes` floats, tiles of at most `most_vectors`."""
    if problem.op == "linear":
        return _linear(problem, density, lanes, most_vectors)
    return _convolution(problem, density, lanes, most_vectors)


def _linear(problem: Problem, density: float, lanes: int, most_vectors: int) -> Plan:
    if problem.batch <= SMALL_BATCH:
        return Plan(1, lanes, ALL, ALL, ALL)
    vectors = -(-problem.batch // lanes)
    tile = -(-vectors // -(-vectors // most_vectors))
    plane = tile * lanes * 4
    forward = best_block(problem.in_features, plane, density, tile)
    backward = best_block(problem.out_features, plane, density, tile)
    return Plan(tile, tile * lanes, forward, backward, ALL)


def _convolution(problem: Problem, density: float, lanes: int, most_vectors: int) -> Plan:
    taps = math.prod(problem.kernel_size)
    positions = math.prod(problem.output_size)
    # Without a window every load is aligned either way, and one image's planes and results fit in L2.
    pointwise = taps == 1 and problem.stride == (1, 1) and problem.padding == (0, 0)
    flat_waste = _up(positions, lanes) / positions
    by_rows = _up(problem.batch, lanes) <= WASTE * problem.batch and (
        not pointwise or flat_waste > WASTE or positions < lanes * most_vectors
    )
    tile, images = most_vectors, lanes if by_rows else 1
    # A plane is one phase of a channel. A tile of outputs reads, of each, a row of positions for every window row
    # that meets it.
    phases = math.prod(min(step, size) for step, size in zip(problem.stride, problem.kernel_size, strict=True))
    rows, reach = (-(-size // step) for size, step in zip(problem.kernel_size, problem.stride, strict=True))
    plane = rows * ((tile if by_rows else tile * lanes) + reach - 1) * images * 4
    non_zeros = density * taps / phases
    forward = best_block(problem.in_features // problem.groups * phases, plane, non_zeros, tile)
    backward = best_block(problem.out_features // problem.groups, plane, non_zeros, tile)
    return Plan(tile, images, forward, backward, 0)


def wasteful(plan: Plan, own: Plan, problem: Problem) -> bool:
    """Whether a plan made for another batch takes much longer for this problem than the problem's own.

    Lanes are what is computed; each pass over the weight costs as much as some more.
    """

    def lanes(plan: Plan) -> int:
        parts = -(-problem.batch // plan.images)
        return parts * (plan.images + (PASS_LANES if problem.op == "linear" else 0))

    streamed = own.tile == 1 < plan.tile and problem.op == "linear" and problem.batch <= SMALL_BATCH
    return streamed or lanes(plan) > REBIND * lanes(own)


def within(limit: int, problem: Problem, plan: Plan, lanes: int) -> Plan:
    """The plan with so few images at a time that packed planes take less than `limit` bytes."""
    if 4 * packed_elements(problem, plan.images) < limit:
        return plan
    if problem.op == "linear":
        return replace(plan, tile=1, images=lanes)
    return replace(plan, images=1)


def packed_elements(problem: Problem, images: int) -> int:
    """An upper bound of the elements of packed planes, of the input or of grad_output."""
    features = max(problem.in_features, problem.out_features)
    if problem.op == "linear":
        return features * images
    rows, columns = (
        size + 2 * pad + dilation * kernel + stride
        for size, pad, dilation, kernel, stride in zip(
            (problem.height, problem.width), problem.padding, problem.dilation, problem.kernel_size, problem.stride,
            strict=True,
        )
    )  # fmt: skip
    return features * (rows * columns * images + 64 * math.prod(problem.stride))


@cache
def cache_bytes(level: int) -> int:
    """Size of this CPU's first or second data cache; 32 KiB and 512 KiB where the system does not say."""
    usual = {1: 32 * 2**10, 2: 512 * 2**10}[level]
    try:
        return max(os.sysconf({1: "SC_LEVEL1_DCACHE_SIZE", 2: "SC_LEVEL2_CACHE_SIZE"}[level]), 0) or usual
    except (ValueError, OSError):
        return usual


def best_block(planes: int, plane_bytes: int, non_zeros: float, tile: int) -> int:
    """Planes of the cheapest block, for rows of so many `non_zeros` per plane; a tile reads `plane_bytes` of one."""

    def cost(block: int) -> float:
        held = min(block, planes)
        bytes_held = held * plane_bytes
        hits = min(1.0, L1_SHARE * cache_bytes(1) / bytes_held)
        from_l2 = FROM_L2 + CROWDED * min(1.0, 2 * bytes_held / cache_bytes(2))
        per_row = PER_ROW + 2 * tile if held < planes else 0.0
        load = tile * (hits * FROM_L1 + (1 - hits) * from_l2)
        return load + PER_NON_ZERO + per_row / max(held * non_zeros, 1e-9)

    return min(BLOCKS, key=cost)


def with_options(plan: Plan, forced: Mapping[str, Any], problem: Problem, lanes: int) -> Plan:
    """The plan with the parts that options force: `layout` (conv2d), `tile`, and `block` in both directions."""
    if (tile := forced.get("tile")) is not None:
        plan = replace(plan, tile=tile, images=tile * lanes if problem.op == "linear" else plan.images)
    if (layout := forced.get("layout")) is not None and problem.op == "conv2d":
        plan = replace(plan, images=1 if layout == "flat" else lanes)
    if (block := forced.get("block")) is not None:
        planes = ALL if block == "all" else block
        plan = replace(plan, forward_block=planes, backward_block=planes)
    return plan


def worthwhile(problem: Problem) -> list[dict[str, str | int]]:
    """The options worth measuring for a problem; the first, none, is the cost model's own choice."""
    if problem.op == "linear":
        if problem.batch <= SMALL_BATCH:
            return [{}]
        return [
            {},
            *({"tile": tile, "block": block} for tile in (8, 6, 4) for block in (96, 128, 192, 256, 384, "all")),
        ]
    blocks = (16, 24, 32, 48, 64, 128, "all")
    return [{}, *({"layout": layout, "block": block} for layout in ("rows", "flat") for block in blocks)]


def _up(value: int, step: int) -> int:
    """`value` rounded up to a multiple of `step`."""
    return -(-value // step) * step
