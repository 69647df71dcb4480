"""One option for each layer, of the least cost within a limit of time: a dynamic program over buckets of time.

Frantar & Alistarh, "SPDY", ICML 2022, section 3. Times are rounded up to buckets, so that what is chosen never takes
longer than the limit; published code rounds to the nearest, and gives the index -1, which means the last option, to
every layer where nothing fits.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sparsebench.plugin import BudgetError

BUCKETS = 10_000


def choose_options(
    costs: Sequence[np.ndarray], times: Sequence[np.ndarray], limit: float, buckets: int = BUCKETS
) -> list[int]:
    """The option of each layer: costs and times are [options] for each layer, finite, times at least 0.

    Rounding up may rule out what only just fits: so the cheapest options are taken if they fit as they are, and the
    fastest ones if nothing else does. Raises `BudgetError` if not even these fit.
    """
    least = sum(float(each.min()) for each in times)
    if not least <= limit:
        raise BudgetError(f"no choice of options takes {limit:.6g} or less; the fastest take {least:.6g}")
    cheapest = [int(np.lexsort((time, cost))[0]) for cost, time in zip(costs, times, strict=True)]
    if sum(float(time[option]) for time, option in zip(times, cheapest, strict=True)) <= limit:
        return cheapest
    rounded = [np.ceil(each * (buckets / limit)).astype(np.int64) for each in times]
    found = solve(costs, rounded, buckets)
    return [int(each.argmin()) for each in times] if found is None else found


def solve(costs: Sequence[np.ndarray], times: Sequence[np.ndarray], capacity: int) -> list[int] | None:
    """The options of least total cost whose times, whole numbers, sum to at most `capacity`; None if there are none.

    Of equal costs the first option of the last layers counts. One pass over the buckets for each option of each layer.
    """
    best = np.zeros(capacity + 1)  # by what may be spent on the layers so far
    taken = []
    for cost, time in zip(costs, times, strict=True):
        after = np.full(capacity + 1, np.inf)
        option_of = np.full(capacity + 1, -1, dtype=np.int32)
        for option, (price, spent) in enumerate(zip(cost, time, strict=True)):
            if spent > capacity:  # one option beyond the limit, of the first layer too, rules out itself alone
                continue
            offer = best[: capacity + 1 - spent] + price
            better = offer < after[spent:]
            after[spent:][better] = offer[better]
            option_of[spent:][better] = option
        best = after
        taken.append(option_of)
    if not np.isfinite(best[capacity]):
        return None
    chosen, left = [], capacity
    for time, option_of in zip(reversed(times), reversed(taken), strict=True):
        option = int(option_of[left])
        chosen.append(option)
        left -= int(time[option])
    return chosen[::-1]
