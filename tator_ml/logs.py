"""How the processes of the backend log: one line an event, on standard error."""

from __future__ import annotations

import logging
import sys

from tator_sdk.settings import Settings


def configure_logging(settings: Settings) -> None:
    """Log from ``settings.log_level`` upwards to standard error."""
    logging.basicConfig(
        level=settings.log_level.upper(),
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it would log the address of every picture
