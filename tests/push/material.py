"""A project of 60 tasks in a Label Studio in memory, and what is pushed into it."""

from __future__ import annotations

from typing import Any

CONFIG = (
    '<View><Image name="image" value="$image"/><RectangleLabels name="box" toName="image">'
    '<Label value="Star"/></RectangleLabels></View>'
)
TASKS = list(range(101, 161))
VERSION = "head-1/relabel-7-abcd"


def prediction(task: int, tag: str = "box", label: str = "Star") -> dict[str, Any]:
    value = {"x": 10 + task % 40, "y": 10, "width": 10, "height": 50, "rotation": 0, "rectanglelabels": [label]}
    region = {
        "id": "a", "from_name": tag, "to_name": "image", "type": "rectanglelabels", "original_width": 400,
        "original_height": 100, "image_rotation": 0, "value": value,
    }  # fmt: skip
    return {"result": [region], "score": 0.5}
