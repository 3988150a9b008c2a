"""How the processes of the backend log: one line an event, on standard error."""

from __future__ import annotations

import logging
import sys
import textwrap

from tator_sdk.plain_text import on_one_line
from tator_sdk.settings import Settings


class OneLine(logging.Formatter):
    """Writes an event on one line whatever it holds; a traceback below it is indented, so that nothing forges one."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        """See :meth:`logging.Formatter.formatMessage`."""
        return on_one_line(super().formatMessage(record))

    def formatException(self, ei: object) -> str:
        """See :meth:`logging.Formatter.formatException`."""
        lines = super().formatException(ei).splitlines()  # type: ignore[arg-type]
        return textwrap.indent("\n".join(map(on_one_line, lines)), "  ", lambda line: True)


def configure_logging(settings: Settings) -> None:
    """Log from ``settings.log_level`` upwards to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(OneLine("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=settings.log_level.upper(), handlers=[handler])
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it would log the address of every picture
