"""Segmenters and encoders of other installed packages, by their entry points. Free of torch.

Only what is installed beside Tator can be named, so no setting and no request makes Tator import a module.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points

log = logging.getLogger(__name__)

SEGMENTERS = "tator.segmenters"
ENCODERS = "tator.encoders"


@functools.cache
def installed(group: str) -> Mapping[str, EntryPoint]:
    """Adapters of other packages by name; of two with one name the first counts, and the log says so.

    Args:
        group: ``SEGMENTERS`` or ``ENCODERS``.
    """
    found: dict[str, EntryPoint] = {}
    for entry in sorted(entry_points(group=group), key=lambda one: (one.name, one.value)):
        if found.setdefault(entry.name, entry).value != entry.value:
            log.warning("%s: %s is %s, so %s is left out", group, entry.name, found[entry.name].value, entry.value)
    return found
