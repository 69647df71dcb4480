"""The cubic schedule that gradual methods prune along: Zhu & Gupta, "To prune, or not to prune", 2017, equation 1."""

from __future__ import annotations

from sparsebench.plugin import Context, UsageError


def cubic(place: float, initial: float, final: float) -> float:
    """Sparsity after the share `place` of the way; exactly `initial` at 0 and `final` at 1."""
    if place <= 0 or place >= 1:
        return initial if place <= 0 else final
    return final - (final - initial) * (1 - place) ** 3


def schedule(ctx: Context) -> dict[int, float]:
    """Sparsity by step, `updates` + 1 times from `initial` to the case's, between the shares `begin` and `end`.

    The last is the case's, whatever falls on one step in a short training.
    """
    p = ctx.parameters
    first, last = round(p["begin"] * ctx.steps), round(p["end"] * ctx.steps)
    count, initial = min(int(p["updates"]), max(1, last - first)), min(float(p["initial"]), ctx.sparsity)
    places = [i / count for i in range(count + 1)]
    planned = {first + round(x * (last - first)): cubic(x, initial, ctx.sparsity) for x in places}
    return {min(step, max(0, ctx.steps - 1)): sparsity for step, sparsity in planned.items()}


def check_schedule(method: str, ctx: Context) -> None:
    """Raise `UsageError` for parameters that make no schedule, and `BudgetError` for a sparsity that cannot be met."""
    begin, end, initial = (float(ctx.parameters[key]) for key in ("begin", "end", "initial"))
    if not 0 <= begin < end <= 1:
        raise UsageError(
            f"{method} prunes from begin = {begin:g} to end = {end:g}; use shares with 0 <= begin < end <= 1"
        )
    if not 0 <= initial < 1 or ctx.parameters["updates"] < 1:
        raise UsageError(
            f"{method}: initial = {initial:g} must be in [0, 1), and updates = {ctx.parameters['updates']} at least 1"
        )
    for sparsity in schedule(ctx).values():
        ctx.budgets(sparsity)
