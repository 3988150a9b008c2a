"""Prompts through Label Studio's own API, as the editor sends them, and whether the answers are right."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from demo.labelled import keypoint, region
from demo.pictures import SETTINGS, TruthObject, truth_of
from tator_sdk.geometry import Xyxy, iou_xyxy

LEAST_MEDIAN_IOU = 0.75
LEAST_RIGHT_CLASSES = 0.8
EACH = 8
AGENT = "heartex/"  # how Label Studio's server calls itself


@dataclass(frozen=True)
class Shot:
    """One prompt and its answer.

    Attributes:
        prompt: ``point``, ``box`` or ``multi-point``.
        iou: of the answered box with the truth.
        label: the class that was answered, with ``truth`` beside it.
        asked_by: User-Agent of the request that reached Tator.
        milliseconds: from request to answer, through Label Studio.
    """

    prompt: str
    iou: float
    label: str | None
    truth: str
    asked_by: str
    milliseconds: float

    def line(self) -> str:
        """One JSON object."""
        return json.dumps(
            {
                "prompt": self.prompt,
                "iou": round(self.iou, 3),
                "class": self.label,
                "truth": self.truth,
                "latency_ms": round(self.milliseconds, 1),
                "asked_by": self.asked_by,
            }
        )


@dataclass(frozen=True)
class Checker:
    """Where to ask.

    Attributes:
        studio: signed in to Label Studio.
        backend: ML backend's number in Label Studio.
        backend_url: Tator's own address, to read who asked it.
        project: the demo's number.
    """

    studio: httpx.Client
    backend: int
    backend_url: str
    project: int

    def shots(self, tasks: list[dict[str, Any]], folder: Path) -> Iterator[Shot]:
        """A point, a loose box and a point with a negative one on objects of the first scenes."""
        rng = np.random.default_rng(3)
        for task in tasks[:EACH]:
            objects = truth_of(folder / Path(task["data"]["image"]).name)
            one = max(objects, key=lambda item: (item.xyxy[2] - item.xyxy[0]) * (item.xyxy[3] - item.xyxy[1]))
            other = next((item for item in objects if item != one), None)
            yield self._shoot(task["id"], "point", [keypoint(one.label, one.point, SETTINGS.size_wh)], one)
            yield self._shoot(task["id"], "box", [region(one.label, _loose(rng, one.xyxy), SETTINGS.size_wh)], one)
            points = [keypoint(one.label, one.point, SETTINGS.size_wh)]
            if other is not None:
                points.append({**keypoint(one.label, other.point, SETTINGS.size_wh), "is_positive": False})
            yield self._shoot(task["id"], "multi-point", points, one)

    def _shoot(self, task: int, prompt: str, items: list[dict[str, Any]], truth: TruthObject) -> Shot:
        begun = time.perf_counter()
        answer = self.studio.post(
            f"/api/ml/{self.backend}/interactive-annotating", json={"task": task, "context": {"result": items}}
        )
        milliseconds = 1000 * (time.perf_counter() - begun)
        answer.raise_for_status()
        regions = (answer.json().get("data") or {}).get("result") or []
        state = httpx.get(f"{self.backend_url}/strip/state", params={"project": self.project}, timeout=5).json()
        box, label = _box_of(regions[0]) if regions else (None, None)
        return Shot(
            prompt, iou_xyxy(box, truth.xyxy) if box else 0.0, label, truth.label,
            str(state.get("asked_by") or ""), milliseconds,
        )  # fmt: skip


def verdict(shots: list[Shot]) -> tuple[bool, dict[str, Any]]:
    """Whether the answers are right: by kind the median IoU, overall the classes and who asked."""
    kinds = sorted({shot.prompt for shot in shots})
    medians = {kind: statistics.median(shot.iou for shot in shots if shot.prompt == kind) for kind in kinds}
    right = sum(shot.label == shot.truth for shot in shots) / max(len(shots), 1)
    through = all(shot.asked_by.startswith(AGENT) for shot in shots)
    good = (
        len(kinds) == 3
        and all(median >= LEAST_MEDIAN_IOU for median in medians.values())
        and right >= LEAST_RIGHT_CLASSES
        and through
    )
    summary = {
        "check": "passed" if good else "failed",
        "median_iou": {kind: round(value, 3) for kind, value in medians.items()},
        "right_classes": round(right, 3),
        "median_latency_ms": round(statistics.median(shot.milliseconds for shot in shots), 1) if shots else None,
        "asked_by_label_studio": through,
    }
    return good, summary


def _loose(rng: np.random.Generator, xyxy: Xyxy) -> Xyxy:
    x0, y0, x1, y1 = xyxy
    off = rng.uniform(-0.1, 0.1, 4) * [x1 - x0, y1 - y0, x1 - x0, y1 - y0]
    moved = np.array(xyxy) + off
    return float(moved[0]), float(moved[1]), float(moved[2]), float(moved[3])


def _box_of(one: dict[str, Any]) -> tuple[Xyxy, str | None]:
    width, height = SETTINGS.size_wh
    value = one["value"]
    labels = value.get(one["type"]) or [None]
    x0, y0 = value["x"] * width / 100, value["y"] * height / 100
    return (x0, y0, x0 + value["width"] * width / 100, y0 + value["height"] * height / 100), labels[0]
