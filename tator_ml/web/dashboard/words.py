"""How numbers are written on pages."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable
from typing import Any

NOTHING = "\N{EN DASH}"
"""What stands where there is no number."""
UNITS = ("B", "kB", "MB", "GB", "TB")


def as_bytes(count: float | None) -> str:
    """``1536`` → ``1.5 kB``."""
    if count is None:
        return NOTHING
    value, unit = float(count), 0
    while abs(value) >= 1000 and unit < len(UNITS) - 1:
        value, unit = value / 1000, unit + 1
    return f"{value:.0f} {UNITS[unit]}" if unit == 0 or value >= 100 else f"{value:.1f} {UNITS[unit]}"


def as_duration(seconds: float | None) -> str:
    """``75`` → ``1 min 15 s``."""
    if seconds is None:
        return NOTHING
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    days, hours, minutes = whole // 86400, whole % 86400 // 3600, whole % 3600 // 60
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {whole % 60} s" if minutes else f"{whole} s"


def as_latency(seconds: float | None) -> str:
    """``0.0314`` → ``31 ms``; from ten seconds on as :func:`as_duration`."""
    if seconds is None or seconds >= 10:
        return as_duration(seconds)
    return f"{1000 * seconds:.0f} ms" if seconds < 1 else f"{seconds:.2f} s"


def as_moment(epoch: float | None) -> str:
    """Seconds since the epoch → ``2026-11-27 10:06`` (UTC)."""
    if epoch is None:
        return NOTHING
    return datetime.datetime.fromtimestamp(epoch, datetime.UTC).strftime("%Y-%m-%d %H:%M")


def as_ago(epoch: float | None) -> str:
    """Seconds since the epoch → ``3 min ago``."""
    if epoch is None:
        return NOTHING
    passed = max(0.0, time.time() - epoch)
    if passed < 45:
        return "just now"
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if passed >= size:
            return f"{passed / size:.0f} {unit} ago"
    return "1 min ago"


def as_share(share: float | None) -> str:
    """``0.123`` → ``12 %``."""
    return NOTHING if share is None else f"{100 * share:.0f} %"


def as_figure(value: Any) -> str:
    """A metric: ``0.8765`` → ``0.877``; anything else as it is."""
    if isinstance(value, float):
        return f"{value:.3f}"
    return NOTHING if value is None else str(value)


FILTERS: dict[str, Callable[..., str]] = {
    "bytes": as_bytes,
    "duration": as_duration,
    "latency": as_latency,
    "moment": as_moment,
    "ago": as_ago,
    "share": as_share,
    "figure": as_figure,
}
"""Filters of the templates by name."""
