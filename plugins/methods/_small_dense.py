"""Small-dense: a narrower dense network with as many weights as the sparse one, inside the big one.

The baseline "Small-Dense" of Evci et al., "Rigging the lottery", ICML 2020, section 4: what pruning has to beat.
"""

from __future__ import annotations

from bisect import bisect_right

import torch

from sparsebench.builtin.methods._channels import Channels
from sparsebench.plugin import NM, BudgetError, Context, Update


class SmallDense:
    """Keeps the same share of every hidden layer's channels, the largest that keeps no more weights than the case does.

    The allocator's shares by layer do not count, their sum does: what others keep in all is not exceeded, and missed by
    less than another channel in every layer would take. All inputs and outputs of the network are kept, and so are both
    sides of an excluded layer. `Channels` says what networks it can follow.
    """

    def setup(self, ctx: Context) -> Update:
        """Masks, and weights scaled to the narrower layers.

        The scale is sqrt(old fan-in / new fan-in), what every usual initialisation over the fan-in would give them;
        where one goes by the fan-out (He et al. in our ResNets) norms make up for it. Raises `BudgetError` for N:M
        groups, networks that cannot be followed, and a sparsity that even one channel a layer does not reach.
        """
        if isinstance(ctx.budgets().scope, NM):
            raise BudgetError("small-dense keeps whole channels; use an allocator without groups")
        channels = Channels(ctx.model)
        lost = sorted(ctx.prunable.keys() - channels.layers.keys())
        if lost:
            raise BudgetError(f"small-dense cannot make this network narrower: {lost[0]} is not in its forward pass")
        channels.keep_whole([name for name in channels.layers if name not in ctx.prunable])
        share = self.share(ctx, channels)
        masks, weights = {}, {}
        kept = channels.kept(lambda width: narrowed(width, share))
        for name, weight in ctx.prunable.items():
            layer = channels.layers[name]
            rows, inputs = kept[layer.outputs], kept[layer.inputs]
            columns = (inputs[:, None] * layer.positions + torch.arange(layer.positions)).flatten()
            mask = torch.zeros(weight.shape, dtype=torch.bool)
            mask[rows[:, None], columns] = True
            masks[name] = mask
            gain = (channels.width[layer.inputs] / len(inputs)) ** 0.5
            weights[name] = torch.where(mask, weight * gain, 0.0)
        return Update(masks=masks, weights=weights, kept={name: int(mask.sum()) for name, mask in masks.items()})

    @staticmethod
    def share(ctx: Context, channels: Channels) -> float:
        """The largest share of channels within the budget; it changes anything only where a width's next channel is."""
        total = sum(weight.numel() for weight in ctx.prunable.values())
        budget = ctx.budgets().total

        def weights_at(share: float) -> int:
            kept = {s: w if s in channels.whole else narrowed(w, share) for s, w in channels.width.items()}
            return sum(
                kept[layer.outputs] * kept[layer.inputs] * layer.positions * ctx.prunable[name][0, 0].numel()
                for name, layer in channels.layers.items()
                if name in ctx.prunable
            )

        shares = sorted({count / width for width in set(channels.width.values()) for count in range(1, width + 1)})
        below = bisect_right(shares, budget, key=weights_at)
        if below == 0:
            raise BudgetError(
                f"small-dense keeps {weights_at(shares[0])} of {total} weights with the fewest channels there can be; "
                f"a sparsity of {ctx.sparsity:g} allows {budget} with this allocator: lower it, or use another method"
            )
        return shares[below - 1]


def narrowed(width: int, share: float) -> int:
    """Channels that are left of `width`, at least 1."""
    return max(1, int(share * width + 1e-9))
