"""How good answers are: COCO's average precision and recall, over pairs of picture and class.

pycocotools matches boxes and sums up. What each picture adds is kept too, so that two models can be compared picture
by picture.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from tator_sdk.geometry import Xyxy, area_xyxy

MOST_ANSWERS = 100
"""Of a class on a picture, as COCO has it; the best count."""

Truth = Sequence[tuple[str, Xyxy]]
"""What is labelled on a picture: class and box in pixels."""
Found = Sequence[tuple[str, float, Xyxy]]
"""What was answered: class, score 0..1 and box in pixels."""


@dataclass(frozen=True)
class Scores:
    """Figures over a set of pictures; classes that are labelled nowhere count for nothing.

    Attributes:
        ap: average precision, the mean over IoUs from 0.5 to 0.95 and over classes.
        ap50, ap75: at one IoU.
        ar: average recall with 100 answers at most, over the same IoUs.
        per_class: ``ap50`` of each class that is labelled.
        pictures, objects, answers: how much was compared.
    """

    ap: float
    ap50: float
    ap75: float
    ar: float
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
    """What each picture adds to the figures at IoU 0.5, of D answers in all.

    Attributes:
        classes: C names.
        labelled: (P, C) objects on each picture.
        picture: (D,) where each answer stands.
        column: (D,) its class.
        score: (D,) of it.
        right: (D,) whether an object was matched with it.
        scores: the figures of all pictures.
    """

    classes: tuple[str, ...]
    labelled: NDArray[np.int64]
    picture: NDArray[np.int64]
    column: NDArray[np.int64]
    score: NDArray[np.float64]
    right: NDArray[np.bool_]
    scores: Scores


def tally(truth: Sequence[Truth], found: Sequence[Found], classes: Sequence[str]) -> Tally:
    """Match answers with labels, picture by picture; what is of no class counts for nothing.

    Args:
        truth: of P pictures.
        found: on them.
        classes: of the data set.
    """
    place = {name: column for column, name in enumerate(classes)}
    labels: list[dict[str, Any]] = [
        {"id": 0, "image_id": row, "category_id": place[name], "bbox": _xywh(box), "area": area_xyxy(box), "iscrowd": 0}
        for row, some in enumerate(truth)
        for name, box in some
        if name in place
    ]
    answers = [
        {"image_id": row, "category_id": place[name], "bbox": _xywh(box), "score": float(score)}
        for row, some in enumerate(found)
        for name, score, box in some
        if name in place
    ]
    labelled = np.zeros((len(truth), len(classes)), np.int64)
    for number, one in enumerate(labels, 1):  # 0 means "none" among matches
        one["id"] = number
        labelled[one["image_id"], one["category_id"]] += 1
    if not labels or not answers:
        none = np.zeros(0, np.int64)
        per_class = {name: 0.0 for name, column in place.items() if labelled[:, column].any()}
        scores = Scores(0.0, 0.0, 0.0, 0.0, per_class, len(truth), len(labels), len(answers))
        return Tally(tuple(classes), labelled, none, none, np.zeros(0), np.zeros(0, np.bool_), scores)
    evaluated = _evaluated(labels, answers, len(truth), len(classes))
    return _tally(evaluated, labelled, classes, len(answers))


def average_precision(right: NDArray[np.bool_], labelled: int) -> float:
    """As ``COCOeval.accumulate`` has it: precision made to fall, read off at 101 recalls.

    Args:
        right: (D,) whether each answer of a class is matched with an object, by falling score.
        labelled: objects of the class, at least one.
    """
    hits = np.cumsum(right)
    precision = hits / np.arange(1, len(hits) + 1)
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    places = np.searchsorted(hits / labelled, np.linspace(0, 1, 101), side="left")
    return float(np.append(precision, 0.0)[np.minimum(places, len(hits))].mean())


def _evaluated(labels: list[dict[str, Any]], answers: list[dict[str, Any]], pictures: int, classes: int) -> Any:
    with contextlib.redirect_stdout(io.StringIO()):  # it prints
        truth = COCO()
        truth.dataset = {
            "images": [{"id": row} for row in range(pictures)],
            "categories": [{"id": column} for column in range(classes)],
            "annotations": labels,
        }
        truth.createIndex()
        evaluation = COCOeval(truth, _results(truth, answers), "bbox")
        evaluation.params.maxDets = [1, 10, MOST_ANSWERS]
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation


def _results(truth: Any, answers: list[dict[str, Any]]) -> Any:
    found = COCO()
    rows = [
        {**one, "id": number, "area": one["bbox"][2] * one["bbox"][3], "iscrowd": 0}
        for number, one in enumerate(answers, 1)
    ]
    found.dataset = {
        "images": truth.dataset["images"], "categories": truth.dataset["categories"], "annotations": rows,
    }  # fmt: skip
    found.createIndex()
    return found


def _tally(evaluation: Any, labelled: NDArray[np.int64], classes: Sequence[str], answers: int) -> Tally:
    rows: list[tuple[int, int, float, bool]] = []
    half = int(np.flatnonzero(np.isclose(evaluation.params.iouThrs, 0.5))[0])
    whole = evaluation.params.areaRng[0]
    for one in evaluation.evalImgs:
        if one is not None and one["aRng"] == whole:
            rows += [
                (one["image_id"], one["category_id"], score, bool(matched))
                for score, matched, ignored in zip(
                    one["dtScores"], one["dtMatches"][half], one["dtIgnore"][half], strict=True
                )
                if not ignored
            ]
    precision = evaluation.eval["precision"][:, :, :, 0, -1]  # IoU, recall, class
    recall = evaluation.eval["recall"][:, :, 0, -1]
    there = labelled.sum(0) > 0
    ious = evaluation.params.iouThrs
    each = precision[half].mean(0)
    scores = Scores(
        ap=float(precision[:, :, there].mean()),
        ap50=float(precision[half][:, there].mean()),
        ap75=float(precision[int(np.flatnonzero(np.isclose(ious, 0.75))[0])][:, there].mean()),
        ar=float(recall[:, there].mean()),
        per_class={name: float(ap) for name, ap, used in zip(classes, each, there, strict=True) if used},
        pictures=len(labelled),
        objects=int(labelled.sum()),
        answers=answers,
    )
    picture, column, score, right = zip(*rows, strict=True)
    return Tally(
        tuple(classes), labelled, np.array(picture, np.int64), np.array(column, np.int64), np.array(score, np.float64),
        np.array(right, np.bool_), scores,
    )  # fmt: skip


def _xywh(box: Xyxy) -> list[float]:
    return [box[0], box[1], box[2] - box[0], box[3] - box[1]]
