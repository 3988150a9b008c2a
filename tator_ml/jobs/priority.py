"""Work that runs behind everything else on the same cores."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

NICENESS = 19
AUTOGROUP = Path("/proc/self/autogroup")


def run_behind_others() -> None:
    """Give this process and those that it will start the lowest priority.

    Linux shares its cores among sessions first, where autogroups are on (they are by default): a process's niceness
    counts within its session only. So a session that this process leads is made nice as a whole; a terminal's, which
    holds other programs too, is left alone.
    """
    if not hasattr(os, "nice"):
        return
    os.nice(NICENESS)
    if os.getsid(0) == os.getpid():
        with contextlib.suppress(OSError):  # no autogroups here
            AUTOGROUP.write_text(str(NICENESS))
