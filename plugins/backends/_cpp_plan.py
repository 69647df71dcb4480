"""How `cpp` computes a problem: tile, layout and blocks, from a small cost model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from sparsebench.plugin import Problem

ALL = 2**30  # planes of a block that never ends
PANEL_BYTES = 24 * 2**10  # of the packed input that one block of planes should take in L1


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
        blocks = [("all" if b >= ALL else str(b)) for b in (self.forward_block, self.backward_block)]
        return f"tile {self.tile}, {self.images} images, blocks {'/'.join(dict.fromkeys(blocks))}"


def choose_plan(problem: Problem, nnz: int, lanes: int, most_vectors: int) -> Plan:
    """The plan for a problem on vectors of `lanes` floats."""
    if problem.op == "linear":
        return _linear(problem, lanes, most_vectors)
    return _convolution(problem, lanes, most_vectors)


def _linear(problem: Problem, lanes: int, most_vectors: int) -> Plan:
    vectors = -(-problem.batch // lanes)
    parts = -(-vectors // most_vectors)
    tile = -(-vectors // parts)
    return Plan(tile, tile * lanes, ALL, ALL, ALL)


def _convolution(problem: Problem, lanes: int, most_vectors: int) -> Plan:
    images = lanes if problem.batch >= lanes else 1
    return Plan(most_vectors, images, 32, 32, 0)


def with_options(plan: Plan, forced: Mapping[str, Any], problem: Problem, lanes: int) -> Plan:
    """The plan with the parts that options force."""
    if forced["tile"] is not None:
        plan = replace(plan, tile=int(forced["tile"]))
        if problem.op == "linear":
            plan = replace(plan, images=plan.tile * lanes)
    if forced["layout"] is not None and problem.op == "conv2d":
        plan = replace(plan, images=1 if forced["layout"] == "flat" else lanes)
    if forced["block"] is not None:
        plan = replace(plan, forward_block=int(forced["block"]), backward_block=int(forced["block"]))
    return plan
