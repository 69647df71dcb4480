"""How numbers are written, everywhere: three significant digits with their unit, a range as low-high."""

from __future__ import annotations

import math


def digits(value: float, count: int = 3) -> str:
    """`count` significant digits without an exponent: 0.0123, 1.23, 12.3, 123, 1234."""
    if count == 3 and 0.001 <= value < 1e15 and not 99 <= value < 100:  # as nearly always, and many times faster
        return f"{value:#.3g}" if value < 99 else f"{value:.0f}"
    if not math.isfinite(value):
        return str(value)
    if value == 0:
        return "0"
    places = max(0, count - 1 - math.floor(math.log10(abs(value))))
    rounded = round(value, places)  # 9.996 becomes 10.0, which has one place less than 9.99
    if rounded:
        places = max(0, count - 1 - math.floor(math.log10(abs(rounded))))
    return f"{rounded:.{min(places, 9)}f}"


def ms(value: float | None) -> str:
    """Milliseconds: "1.23 ms"."""
    return "" if value is None else f"{digits(value)} ms"


def ratio(value: float | None) -> str:
    """A ratio of times: "2.31x"."""
    return "" if value is None else f"{_two_places(value)}x"


def span(low: float | None, high: float | None) -> str:
    """A range of times: "2.25-2.40"; empty where there is none, or nothing between its ends."""
    if low is None or high is None or low == high:
        return ""
    return f"{digits(low)}-{digits(high)}"


def ratio_span(low: float | None, high: float | None) -> str:
    """A range of ratios: "0.48-0.51"."""
    if low is None or high is None or low == high:
        return ""
    return f"{_two_places(low)}-{_two_places(high)}"


def _two_places(value: float) -> str:
    """Two places, as the eye compares ratios with 1.00; three digits where that would hide them."""
    return f"{value:.2f}" if 0.1 <= value < 10 else digits(value)


def percent(change: float | None, signed: bool = True) -> str:
    """A ratio of times as a change: 1.2 is "+20.0 %", 0.5 is "-50.0 %"."""
    if change is None:
        return ""
    return f"{_signed(change)} %" if signed else f"{change * 100:.1f} %"


def percent_span(low: float | None, high: float | None) -> str:
    """An interval of changes: "+1.2 .. +3.4 %"; an end that so few blocks do not bound is "?"."""
    if low is None and high is None:
        return ""
    ends = ("?" if end is None else _signed(end) for end in (low, high))
    return f"{' .. '.join(ends)} %"


def _signed(change: float) -> str:
    """Percent with a sign; what rounds to nothing is +0.0."""
    return f"{round((change - 1) * 100, 1) + 0.0:+.1f}"


def mebibytes(count: int) -> str:
    """Bytes as "12.3 MiB"."""
    return f"{digits(count / 2**20)} MiB" if count else ""


def kibibytes(count: float | None) -> str:
    """Bytes as "12 KiB"; nothing for None."""
    return "" if count is None else f"{round(count / 2**10)} KiB"


def metric(name: str, value: float) -> str:
    """A measured quantity: accuracies in percent, counts whole, all else with four digits."""
    if "accuracy" in name:
        return percent(value, signed=False)
    return str(int(value)) if value == int(value) else digits(value, 4)


def plain(value: object) -> str:
    """A value of an axis: 0.9, forward, 3x3."""
    if isinstance(value, float):
        return f"{value:g}"
    return "x".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
