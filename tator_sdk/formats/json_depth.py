"""JSON that somebody else wrote, kept shallow while it is read.

ijson names each value by its path, so the memory for nested brackets grows with the square of their depth: a hundred
kilobytes of ``[`` took 25 GB.
"""

from __future__ import annotations

import re
from typing import BinaryIO

import numpy as np

from tator_sdk.formats.dataset import DatasetError

MOST_DEPTH = 64
"""COCO needs five."""
_ESCAPED = re.compile(rb"\\.", re.S)
_QUOTE = ord('"')
_STEPS = np.zeros(256, np.int8)
_STEPS[[ord("["), ord("{")]] = 1
_STEPS[[ord("]"), ord("}")]] = -1


class ShallowJson:
    """A binary file for ijson to read, which refuses brackets within brackets beyond ``MOST_DEPTH``."""

    def __init__(self, stream: BinaryIO, name: str) -> None:
        """Read from ``stream``; ``name`` is for the message."""
        self._stream = stream
        self._name = name
        self._depth = 0
        self._inside = 0
        self._escape = False

    def read(self, size: int = -1) -> bytes:
        """The next bytes.

        Raises:
            DatasetError: they are nested too deeply.
        """
        data = self._stream.read(size)
        self._look(data)
        return data

    def _look(self, data: bytes) -> None:
        if self._escape and data:
            data, self._escape = data[1:], False
        if b"\\" in data:
            data = _ESCAPED.sub(b"", data)
            self._escape = data.endswith(b"\\")
        if not data:
            return
        read = np.frombuffer(data, np.uint8)
        inside = (np.cumsum(read == _QUOTE, dtype=np.int32) + self._inside) & 1
        depth = np.cumsum(_STEPS[read] * (1 - inside), dtype=np.int32) + self._depth
        self._inside, self._depth = int(inside[-1]), int(depth[-1])
        if depth.max() > MOST_DEPTH:
            raise DatasetError(f"{self._name} is nested deeper than {MOST_DEPTH} levels: it is no COCO file.")
