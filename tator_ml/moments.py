"""Moments as Label Studio writes them."""

from __future__ import annotations

import datetime


def epoch_of(written: object) -> float:
    """Seconds since the epoch of Label Studio's ``2026-11-22T19:41:11.323126Z``; 0 of anything else."""
    try:
        moment = datetime.datetime.fromisoformat(str(written))
    except ValueError:
        return 0.0
    return (moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)).timestamp()
