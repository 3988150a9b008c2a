"""The record of suggestions: masks and drawings are kept, and files of the first version are taken on."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

from tator_ml.suggestions import Suggestions

from .hand_made import box

FIRST_SCHEMA = """
CREATE TABLE suggestions (
    id INTEGER PRIMARY KEY, at REAL NOT NULL, project INTEGER, task INTEGER, prompt_ids TEXT NOT NULL,
    region_id TEXT NOT NULL, region TEXT NOT NULL, model_version TEXT NOT NULL
);
"""


def mask_region(kind: str, **value: Any) -> dict[str, Any]:
    return {"id": kind, "type": kind, "value": {kind: ["Ball"], **value}, "original_width": 4, "original_height": 4}


def test_what_is_recorded_comes_back(tmp_path: Path) -> None:
    kept = Suggestions(tmp_path / "s.sqlite")
    brush = mask_region("brushlabels", format="rle", rle=[0, 255, 17, 3] * 50)
    bitmask = mask_region("bitmasklabels", imageDataURL="data:image/png;base64,AAAA")
    stood = box("r", "Ball", (1, 1, 9, 9))
    kept.record(1, 2, ["p"], [brush, bitmask], "v1", "points", "c" * 64)
    kept.record(
        1, 2, ["r"], [box("r", "Box", (2, 2, 5, 5))], "v1", "boxes", None, [stood, {"id": "p", "type": "keypoint"}]
    )
    one, other, last = kept.objects_of(1, 2)
    assert (one.item, other.item) == (brush, bitmask)
    assert (one.labels, one.image, one.assist, one.prompts) == (("Ball",), "c" * 64, "points", frozenset({"p"}))
    assert last.before is not None and last.before["value"] == stood["value"] and one.before is None
    slim = [row["region"] for row in kept.of_task(1, 2)]
    assert "rle" not in slim[0]["value"] and "imageDataURL" not in slim[1]["value"]  # type: ignore[index]
    assert kept.tasks(1) == [2]
    kept.close()


def test_a_file_of_the_first_version_is_taken_on(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "s.sqlite") as old:
        old.executescript(FIRST_SCHEMA)
        row = (1.0, 1, 2, json.dumps(["p"]), "r", json.dumps(box("r", "Ball", (1, 1, 9, 9))), "v0")
        old.execute("INSERT INTO suggestions VALUES (NULL, ?, ?, ?, ?, ?, ?, ?)", row)
    old.close()
    for _ in range(2):
        kept = Suggestions(tmp_path / "s.sqlite")
        (one,) = kept.objects_of(1, 2)
        assert (one.version, one.assist, one.before, one.labels) == ("v0", "", None, ("Ball",))
        kept.close()
