"""Which pictures are held out: the same for training, for every head and for exported data sets."""

from __future__ import annotations

import hashlib


def held_out_share(image: str, seed: int) -> float:
    """A picture's place in 0..1, from its content hash alone; below the test share it is held out."""
    digest = hashlib.sha256(f"{seed}:{image}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
