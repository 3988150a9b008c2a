"""The fuzzed readers in the suite: their seeds, a few hundred changed ones, and whatever once broke one."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from .targets import TARGETS, Target

FOUND = Path(__file__).parent / "found"
CHANGED = 150
SLOW = {"zip": 40, "yolo-folder": 60, "coco": 60}


def changed(seed: bytes, target: Target, dice: random.Random) -> bytes:
    """A seed with a few bytes flipped, cut out, doubled or taken from the format's words."""
    data = bytearray(seed)
    for _ in range(dice.randint(1, 6)):
        at = dice.randrange(len(data) + 1)
        what = dice.randrange(4)
        if what == 0 and data:
            data[at % len(data)] = dice.randrange(256)
        elif what == 1:
            del data[at : at + dice.randint(1, 12)]
        elif what == 2:
            data[at:at] = data[max(0, at - 20) : at]
        elif target.words:
            data[at:at] = dice.choice(target.words).encode()
    return bytes(data[: target.longest])


@pytest.mark.parametrize("name", TARGETS)
def test_nothing_but_sentences(name: str) -> None:
    target, dice = TARGETS[name], random.Random(7)
    for seed in target.seeds:
        target.read(seed)
    for _ in range(SLOW.get(name, CHANGED)):
        target.read(changed(dice.choice(target.seeds), target, dice))


@pytest.mark.parametrize("path", sorted(FOUND.glob("*/*")), ids=lambda path: f"{path.parent.name}-{path.name[:20]}")
def test_what_once_broke_a_reader(path: Path) -> None:
    TARGETS[path.parent.name].read(path.read_bytes())
