"""A small project written out by hand, with figures that were computed by hand.

Pictures are 100 x 100 pixels, so percent are pixels; boxes are x, y, width, height. Ada is person 1, Ben person 2.
2026-W47 begins on Monday, 16 November, W48 on the 23rd.

Task 1, Ada, W47, 30 s, 3 objects: 10 s each

    a  points  v1  Ball  10 10 20 20                     as it was                        accepted   IoU 1
    b  boxes   v1  Box   40 40 20 20, drawn 38 38 24 24  Box  40 40 20 10                 edited     200/400 = 0.5
    c  boxes   v1  Ball  70 70 20 20, drawn 68 68 24 24  Ball 68 68 24 24: as drawn       unused

Task 2, Ben, W47, 20 s, 2 objects (one by hand): 10 s each

    d  points  v1  Ball   0  0 10 10                     Box   0  0 10 10                 relabelled IoU 1
    e  points  v1  Ball  50 50 20 20                     not there                        unused

Task 3, Ada, W48, 12 s, 2 objects: 6 s each

    f  points  v2  Box   10 10 10 10                     asked again under the same id    replaced
    f  points  v2  Box   10 10 20 20                     Box  15 10 20 20                 edited     300/500 = 0.6
    g  text    v2  Ball  50 50 10 10                     the words again: see h           replaced   (100/200 = 0.5)
    h  text    v2  Ball  50 50 10 20                     as it was                        accepted   IoU 1

Task 4, Ben, W48, 40 s, 2 objects: 20 s each; begun with prediction 90 of version v2/prelabel-7-ab

    i  stored  v2  Ball   0  0 20 20                     as it was                        accepted   IoU 1
    j  stored  v2  Box   30 30 20 20                     under another id, 30 30 20 25    edited     400/500 = 0.8

Task 5, Ada, W48, 50 s, 2 objects by hand: 25 s each
Task 6: k is suggested, and nobody has submitted it
Task 7: l is suggested, and Ben skips it
Task 8, Ben, W48, 4000 s, 1 object by hand: a pause

Decided are 9: accepted a h i; edited b f j (mean IoU 1.9/3); relabelled d; unused c e. Replaced are 2.
The mean IoU of the 7 that were used is (3 + 1.9 + 1)/7.
With assistance 10, 10, 6 and 20 s an object: median 10, mean 11.5. Without: 25 s. Saved: 1 - 10/25.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import Any

import pytest

from tator_ml.suggestions import Suggestions

PROJECT = 7
CONFIG = (
    '<View><Image name="image" value="$image"/><KeyPointLabels name="kp" toName="image" smart="true">'
    '<Label value="Ball"/></KeyPointLabels><RectangleLabels name="rect" toName="image" smart="true">'
    '<Label value="Ball"/><Label value="Box"/></RectangleLabels></View>'
)
ADA, BEN = 1, 2
NAMES = {ADA: "Ada", BEN: "Ben"}

# accepted, edited, relabelled, unused, replaced
EXPECTED = {
    "label": {"Ball": (3, 0, 1, 2, 1), "Box": (0, 3, 0, 0, 1)},
    "version": {"v1": (1, 1, 1, 2, 0), "v2": (2, 2, 0, 0, 2)},
    "annotator": {"Ada": (2, 2, 0, 1, 0), "Ben": (1, 1, 1, 1, 0)},
    "week": {"2026-W47": (1, 1, 1, 2, 0), "2026-W48": (2, 2, 0, 0, 2)},
    "assist": {
        "points": (1, 1, 1, 1, 1), "boxes": (0, 1, 0, 1, 0), "text": (1, 0, 0, 0, 1), "prelabel": (1, 1, 0, 0, 0),
    },
}  # fmt: skip
TOTAL = (3, 3, 1, 2, 2)


def moment(day: int, hour: int = 12, minute: int = 0) -> datetime.datetime:
    """Of November 2026, UTC."""
    return datetime.datetime(2026, 11, day, hour, minute, tzinfo=datetime.UTC)


def box(name: str, label: str, place: tuple[float, float, float, float], **more: Any) -> dict[str, Any]:
    """A region."""
    x, y, width, height = place
    value = {"x": x, "y": y, "width": width, "height": height, "rotation": 0, "rectanglelabels": [label]}
    return {
        "id": name, "from_name": "rect", "to_name": "image", "type": "rectanglelabels", "value": value,
        "original_width": 100, "original_height": 100, "image_rotation": 0, **more,
    }  # fmt: skip


@dataclass(frozen=True)
class Asked:
    """What is suggested on a task at a time: prompts, answer, version, assist, and what stood before."""

    at: datetime.datetime
    task: int
    prompts: tuple[str, ...]
    region: dict[str, Any]
    version: str
    assist: str
    before: tuple[dict[str, Any], ...] = ()


ASKED = (
    Asked(moment(17, 11, 0), 1, ("pa",), box("a", "Ball", (10, 10, 20, 20)), "v1", "points"),
    Asked(
        moment(17, 11, 1), 1, ("b",), box("b", "Box", (40, 40, 20, 20)), "v1", "boxes",
        (box("b", "Box", (38, 38, 24, 24)),),
    ),
    Asked(
        moment(17, 11, 2), 1, ("b", "c"), box("c", "Ball", (70, 70, 20, 20)), "v1", "boxes",
        (box("b", "Box", (38, 38, 24, 24)), box("c", "Ball", (68, 68, 24, 24))),
    ),
    Asked(moment(18, 11), 2, ("pd",), box("d", "Ball", (0, 0, 10, 10)), "v1", "points"),
    Asked(moment(18, 11, 1), 2, ("pe",), box("e", "Ball", (50, 50, 20, 20)), "v1", "points"),
    Asked(moment(24, 11), 3, ("pf",), box("f", "Box", (10, 10, 10, 10)), "v2", "points"),
    Asked(moment(24, 11, 1), 3, ("pf", "pf2"), box("f", "Box", (10, 10, 20, 20)), "v2", "points"),
    Asked(moment(24, 11, 2), 3, ("t",), box("g", "Ball", (50, 50, 10, 10)), "v2", "text"),
    Asked(moment(24, 11, 3), 3, ("t",), box("h", "Ball", (50, 50, 10, 20)), "v2", "text"),
    Asked(moment(24, 11), 6, ("pk",), box("k", "Ball", (50, 50, 10, 20)), "v2", "points"),
    Asked(moment(24, 11), 7, ("pl",), box("l", "Ball", (50, 50, 10, 20)), "v2", "points"),
)  # fmt: skip
PREDICTION = {
    "id": 90, "task": 4, "model_version": "v2/prelabel-7-ab", "created_at": moment(24, 8).isoformat(),
    "result": [box("i", "Ball", (0, 0, 20, 20)), box("j", "Box", (30, 30, 20, 20))],
}  # fmt: skip


def annotation(
    number: int, task: int, who: int, when: datetime.datetime, lead: float, *result: dict[str, Any], **more: Any
) -> dict[str, Any]:
    """As Label Studio sends it."""
    return {
        "id": number, "task": task, "completed_by": who, "lead_time": lead, "result": list(result),
        "created_at": when.isoformat(), "updated_at": when.isoformat(), "was_cancelled": False,
        "parent_prediction": None, **more,
    }  # fmt: skip


ANNOTATIONS = (
    annotation(
        11, 1, ADA, moment(17), 30.0, box("a", "Ball", (10, 10, 20, 20)), box("b", "Box", (40, 40, 20, 10)),
        box("c", "Ball", (68, 68, 24, 24)),
    ),
    annotation(12, 2, BEN, moment(18), 20.0, box("d", "Box", (0, 0, 10, 10)), box("m", "Ball", (70, 0, 10, 10))),
    annotation(13, 3, ADA, moment(24), 12.0, box("f", "Box", (15, 10, 20, 20)), box("h", "Ball", (50, 50, 10, 20))),
    annotation(
        14, 4, BEN, moment(25), 40.0, box("i", "Ball", (0, 0, 20, 20), origin="prediction"),
        box("x9", "Box", (30, 30, 20, 25), origin="prediction-changed"), parent_prediction=90,
    ),
    annotation(15, 5, ADA, moment(25), 50.0, box("n", "Ball", (0, 0, 20, 20)), box("o", "Box", (30, 0, 20, 20))),
    annotation(17, 7, BEN, moment(25), 5.0, was_cancelled=True),
    annotation(18, 8, BEN, moment(26), 4000.0, box("q", "Ball", (0, 0, 20, 20))),
)  # fmt: skip


def record_all(suggestions: Suggestions, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have everything suggested at its time."""
    for one in ASKED:
        with monkeypatch.context() as patch:
            patch.setattr("tator_ml.suggestions.time.time", one.at.timestamp)
            suggestions.record(
                PROJECT, one.task, one.prompts, [one.region], one.version, one.assist, "a" * 64, one.before
            )
