"""How good answers are: detection F1 and AP at IoU 0.5, mean IoU, and whether the right classes were named."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tator_sdk.geometry import Xyxy, iou_xyxy

LEAST_IOU = 0.5

Boxes = Sequence[tuple[str, Xyxy]]
"""What stands on one picture: class and box in pixels."""


@dataclass(frozen=True)
class Scores:
    """Figures over a set of pictures.

    Attributes:
        map50: mean over the classes of the average precision at IoU 0.5. A language model gives no scores to rank
            answers by, so each class has one point of precision and recall, and the area under it is their product.
        f1, precision, recall: of all boxes at IoU 0.5, whatever their class's size.
        mean_iou: over the labelled objects, with the answer matched to each; 0 where none overlaps it.
        label_f1: of the pairs of picture and class that were named, wherever their boxes are.
        per_class: average precision at IoU 0.5 of each class that is labelled or was answered.
        pictures, objects, answers: how much was compared.
    """

    map50: float
    f1: float
    precision: float
    recall: float
    mean_iou: float
    label_f1: float
    per_class: dict[str, float]
    pictures: int
    objects: int
    answers: int

    def as_json(self) -> dict[str, Any]:
        """For reports, rounded."""
        rounded = {name: round(value, 4) if isinstance(value, float) else value for name, value in asdict(self).items()}
        return {**rounded, "per_class": {name: round(value, 4) for name, value in self.per_class.items()}}


@dataclass(frozen=True, eq=False)
class Tally:
    """What each picture adds to the figures.

    Attributes:
        classes: C names.
        counts: (pictures, C, 3) right answers at IoU 0.5, labelled objects, answers.
        ious: sum over each picture's labelled objects.
        named: (pictures, 3) classes rightly named, labelled, and named.
    """

    classes: tuple[str, ...]
    counts: NDArray[np.int64]
    ious: NDArray[np.float64]
    named: NDArray[np.int64]


def tally(truth: Sequence[Boxes], found: Sequence[Boxes], classes: Sequence[str]) -> Tally:
    """Match answers with labels, picture by picture; answers of no class are none's, but count as wrong.

    Args:
        truth: the labelled boxes of each picture.
        found: the answered ones.
        classes: of the data set.
    """
    names = tuple(dict.fromkeys([*classes, *(label for boxes in (*truth, *found) for label, _ in boxes)]))
    counts = np.zeros((len(truth), len(names), 3), np.int64)
    ious = np.zeros(len(truth))
    named = np.zeros((len(truth), 3), np.int64)
    for row, (labelled, answered) in enumerate(zip(truth, found, strict=True)):
        for column, name in enumerate(names):
            mine = [box for label, box in labelled if label == name]
            theirs = [box for label, box in answered if label == name]
            matched = _matched(mine, theirs)
            counts[row, column] = (sum(iou >= LEAST_IOU for iou in matched), len(mine), len(theirs))
            ious[row] += sum(matched)
        here, said = {label for label, _ in labelled}, {label for label, _ in answered}
        named[row] = (len(here & said), len(here), len(said))
    return Tally(names, counts, ious, named)


def score(one: Tally) -> Scores:
    """The figures over all pictures of a tally."""
    right, labelled, answered = one.counts.sum((0, 1)).tolist()
    precision, recall, f1 = _rates(right, labelled, answered)
    aps = average_precisions(one.counts.sum(0))
    used = one.counts.sum(0)[:, 1:].sum(1) > 0
    return Scores(
        map50=map50(one.counts.sum(0)),
        f1=f1,
        precision=precision,
        recall=recall,
        mean_iou=float(one.ious.sum() / max(labelled, 1)),
        label_f1=_rates(*one.named.sum(0).tolist())[2],
        per_class={name: float(ap) for name, ap, there in zip(one.classes, aps, used, strict=True) if there},
        pictures=len(one.counts),
        objects=labelled,
        answers=answered,
    )


def average_precisions(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """(..., C, 3) counts → (..., C) precision times recall of each class."""
    right, labelled, answered = (counts[..., place].astype(np.float64) for place in range(3))
    found: NDArray[np.float64] = right**2 / np.maximum(labelled, 1) / np.maximum(answered, 1)
    return found


def map50(counts: NDArray[np.int64]) -> Any:
    """(..., C, 3) counts → (...) mean over the classes that are labelled; others cannot be found."""
    labelled = counts[..., 1] > 0
    mean = (average_precisions(counts) * labelled).sum(-1) / np.maximum(labelled.sum(-1), 1)
    return float(mean) if mean.ndim == 0 else mean


def constant_answer(
    labelled: Sequence[Boxes], sizes_wh: Sequence[tuple[int, int]], asked_wh: Sequence[tuple[int, int]]
) -> list[list[tuple[str, Xyxy]]]:
    """What an answer that never looks would be: of each class as many median boxes as a picture usually has.

    Args:
        labelled: of the pictures that were learned from.
        sizes_wh: of those.
        asked_wh: sizes of the pictures to answer for.
    """
    shares: dict[str, list[NDArray[np.float64]]] = {}
    for boxes, (width, height) in zip(labelled, sizes_wh, strict=True):
        for label, box in boxes:
            shares.setdefault(label, []).append(np.array(box) / (width, height, width, height))
    counted = Counter({label: len(found) for label, found in shares.items()})
    usual = [label for label, count in counted.items() if round(count / max(len(labelled), 1)) >= 1]
    usual = usual or [label for label, _ in counted.most_common(1)]
    medians = {label: np.median(shares[label], axis=0) for label in usual}
    return [
        [(label, _xyxy(median * (width, height, width, height))) for label, median in medians.items()]
        for width, height in asked_wh
    ]


def _xyxy(values: NDArray[np.float64]) -> Xyxy:
    x0, y0, x1, y1 = values.tolist()
    return x0, y0, x1, y1


def _rates(right: int, labelled: int, answered: int) -> tuple[float, float, float]:
    """Precision, recall and F1; all are 1 where nothing was labelled and nothing answered."""
    if not labelled and not answered:
        return 1.0, 1.0, 1.0
    return right / max(answered, 1), right / max(labelled, 1), 2 * right / (labelled + answered)


def _matched(labelled: Sequence[Xyxy], answered: Sequence[Xyxy]) -> list[float]:
    """IoU of pairs, the best first, each box in one at most."""
    pairs = [
        (iou, row, column)
        for row, one in enumerate(labelled)
        for column, other in enumerate(answered)
        if (iou := iou_xyxy(one, other)) > 0
    ]
    taken: tuple[set[int], set[int]] = (set(), set())
    found = []
    for iou, row, column in sorted(pairs, key=lambda pair: (-pair[0], pair[1], pair[2])):
        if row not in taken[0] and column not in taken[1]:
            taken[0].add(row)
            taken[1].add(column)
            found.append(iou)
    return found
