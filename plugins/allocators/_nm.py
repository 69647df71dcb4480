"""N:M: K of every G weights along the input channels, in every layer."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from sparsebench.plugin import NM, BudgetError, Context, UsageError


class FineGrained:
    """`argument` is "K:G" with K kept: much published code means pruned ones by its first number."""

    def __init__(self, argument: str) -> None:
        keep, _, group = argument.partition(":")
        if not (keep.isdecimal() and group.isdecimal() and 0 < int(keep) < int(group)):
            raise UsageError(f"nm:{argument}: write the kept weights and the group, as in nm:2:4")
        self.scope = NM(int(keep), int(group))

    def allocate(self, layers: Mapping[str, Tensor], target: float, ctx: Context) -> dict[str, float]:
        """1 - K/G everywhere; raises `BudgetError` for another target and for layers that have no whole groups."""
        share = 1 - self.scope.keep / self.scope.group
        if abs(target - share) > 1e-9:
            raise BudgetError(f"nm:{self.scope} has the sparsity {share:g} and no other; {target:g} is not to be had")
        for name, weight in layers.items():
            if weight.shape[1] % self.scope.group:
                raise BudgetError(
                    f"{name} has {weight.shape[1]} input channels, which are no whole groups of {self.scope.group}; "
                    f'exclude the layer: exclude = ["{name.removesuffix(".weight")}"]'
                )
        return dict.fromkeys(layers, share)
