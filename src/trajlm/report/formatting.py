"""Numbers and names as a reader meets them: thousands separated, no false precision.

Every function takes plain data and gives plain text; `None`, NaN and infinity are `ABSENT`.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from typing import Any

ABSENT = "–"
HUGE = 1e100


def finite(value: Any) -> float | None:
    """`value` as a float, or None where it is no number, not finite or too large to draw."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < HUGE:
        return None
    return float(value)


def amount(value: Any) -> str:
    """A return, length or other quantity: 5209.6 -> '5,210', 90.51 -> '90.5', 0.012345 -> '0.0123'."""
    number = finite(value)
    if number is None:
        return ABSENT
    size = abs(number)
    if number.is_integer() and size < 1e15:
        return f"{int(number):,}"
    if size >= 1e15 or size < 1e-4:
        return f"{number:.2e}"
    decimals = 0 if size >= 99.95 else 1 if size >= 9.995 else 2 - math.floor(math.log10(size))
    text = f"{number:,.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text and size < 9.995 else text


def score(value: Any) -> str:
    """A normalised score, with one decimal: 42.63 -> '42.6'."""
    number = finite(value)
    return ABSENT if number is None else f"{number:,.1f}"


def interval(values: Any, *, of: Any = amount) -> str:
    """The two ends of an interval: [5120, 5300] -> '5,120 to 5,300'."""
    ends = bounds(values)
    return ABSENT if ends is None else f"{of(ends[0])} to {of(ends[1])}"


def bounds(values: Any) -> tuple[float, float] | None:
    """An interval's two finite ends, or None."""
    if not isinstance(values, Sequence) or isinstance(values, str) or len(values) != 2:
        return None
    low, high = finite(values[0]), finite(values[1])
    return None if low is None or high is None else (low, high)


def plus_minus(mean: Any, values: Any) -> str:
    """A mean with half its interval's width: '5,210 ± 90'; the mean alone where there is none."""
    ends = bounds(values)
    if finite(mean) is None or ends is None:
        return amount(mean)
    half = (ends[1] - ends[0]) / 2
    # More digits than the mean shows would be noise.
    shown = f"{half:,.0f}" if abs(float(mean)) >= 99.95 and half >= 0.95 else amount(half)
    return f"{amount(mean)} ± {shown}"


def asked(target: Any) -> str:
    """A target return; 'nothing' where the policy is asked for no return."""
    return "nothing" if target is None else amount(target)


def count(number: int, noun: str) -> str:
    """'1 episode', '50 episodes'."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def plain(value: Any, *, limit: int = 500) -> str:
    """Any value on one line, without control characters, cut at `limit` characters."""
    if value is None:
        return ABSENT
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return amount(value)
    if isinstance(value, list | tuple):
        value = ", ".join(plain(item) for item in value)
    text = "".join(" " if unicodedata.category(c)[0] == "C" else c for c in str(value))
    return text if len(text) <= limit else text[: limit - 1] + "…"
