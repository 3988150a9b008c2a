"""Which pictures are held out: decided by their content, so the same for every head and every run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tator_sdk.held_out import held_out_share


def split_by_image(
    images: Sequence[str], labels: Sequence[str], test_share: float, seed: int, fewest: int
) -> tuple[NDArray[np.bool_], list[str]]:
    """Which boxes are held out: no picture has boxes on both sides.

    A class that would keep fewer than ``fewest`` examples to learn from gets held-out pictures back, in a fixed
    order; where every picture would be held out, or none of several, the one nearest the border changes sides.

    Returns:
        (N,) True for held-out boxes, and what was done beyond the rule, in sentences.
    """
    places = {image: held_out_share(image, seed) for image in set(images)}
    out = {image for image, place in places.items() if place < test_share}
    notes = []
    ordered = sorted(places, key=lambda image: places[image])
    if len(ordered) > 1 and not out:
        out = {ordered[0]}
    if ordered and len(out) == len(ordered):
        out.discard(ordered[-1])
    needed = {label: min(count, fewest) for label, count in Counter(labels).items()}
    on = {image: Counter[str]() for image in places}
    for image, label in zip(images, labels, strict=True):
        on[image][label] += 1
    kept = sum((on[image] for image in places if image not in out), Counter())
    for image in reversed(ordered):
        here = on[image]
        short = [label for label in here if kept[label] < needed[label]]
        if image in out and short:
            out.discard(image)
            kept += here
            notes.append(f"a held-out picture is learned from, since '{short[0]}' had too few examples otherwise")
    return np.array([image in out for image in images], bool), notes
