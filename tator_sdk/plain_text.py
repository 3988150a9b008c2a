"""Text from outside, made safe for a line of a log or of a terminal."""

from __future__ import annotations

import re

# C0 without the tab, DEL, C1, what other programs take for the end of a line, and what turns text around
_CONTROL = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def on_one_line(text: str) -> str:
    r"""Text whose control characters are written out, so that it can neither end a line nor steer a terminal.

    >>> on_one_line("cat\n2026-01-01 INFO all is well")
    'cat\\n2026-01-01 INFO all is well'
    """
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
