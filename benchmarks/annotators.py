"""People who label through Label Studio, as its editor does: open, look, click, accept, save a draft, submit."""

from __future__ import annotations

import random
import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
import numpy as np

from demo.labelled import LabelledProject, LabelledTask, keypoint, region
from demo.people import Person
from tator_sdk.geometry import Xyxy, iou_xyxy
from training.starter.prompts import loosened

LEAST_IOU = 0.3  # of an answer with what was pointed at; a mix-up of pictures would not reach it
BOXES = 0.3  # of the prompts, the others are clicks
LOOSE = 0.08


@dataclass
class Record:
    """What all people met; any thread adds.

    Attributes:
        seconds: of each request by what it was for: open, picture, click, draft, submit.
        errors: what was no answer.
        empty: clicks that found nothing.
        elsewhere: answers that lie somewhere else than what was pointed at.
        submitted: annotations.
    """

    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    errors: list[str] = field(default_factory=list)
    empty: int = 0
    elsewhere: int = 0
    submitted: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def took(self, what: str, seconds: float) -> None:
        """Keep how long a request took."""
        with self._lock:
            self.seconds[what].append(seconds)

    def count(self, *, empty: int = 0, elsewhere: int = 0, submitted: int = 0) -> None:
        """Add what happened."""
        with self._lock:
            self.empty += empty
            self.elsewhere += elsewhere
            self.submitted += submitted


@dataclass(frozen=True)
class Annotator:
    """One person with tasks of their own.

    Attributes:
        think_seconds: mean time from an answer to the next click, looking and accepting included.
        seed: of their pauses and of how loosely they draw.
    """

    person: Person
    project: LabelledProject
    tasks: Sequence[LabelledTask]
    think_seconds: float
    record: Record
    seed: int

    def work(self) -> None:
        """Label all of the tasks."""
        pauses, hand = random.Random(self.seed), np.random.default_rng(self.seed)
        time.sleep(pauses.uniform(0, 4 * self.think_seconds))  # nobody begins with the others
        for task in self.tasks:
            begun = time.monotonic()
            self._get("open", f"/api/tasks/{task.number}", project=self.project.number)
            self._get("picture", task.image)
            accepted: list[dict[str, Any]] = []
            for box in task.boxes:
                time.sleep(pauses.gammavariate(2.0, self.think_seconds / 2))
                if pauses.random() < BOXES:
                    loose = loosened(hand, box.xyxy, LOOSE)
                    prompt = region(box.label, tuple(float(edge) for edge in loose), task.size_wh)  # type: ignore[arg-type]
                else:
                    prompt = keypoint(box.label, box.point, task.size_wh)
                accepted += self._click(task, prompt, box.xyxy)
            self._submit(task, accepted, time.monotonic() - begun)

    def _click(self, task: LabelledTask, prompt: dict[str, Any], wanted: Xyxy) -> list[dict[str, Any]]:
        body = {"task": task.number, "context": {"result": [prompt]}}
        answer = self._post("click", f"/api/ml/{self.project.backend}/interactive-annotating", body)
        if answer is None:
            return []
        regions = list((answer.get("data") or {}).get("result") or [])
        if not regions:
            self.record.count(empty=1)
        elif iou_xyxy(_xyxy(regions[0], task.size_wh), wanted) < LEAST_IOU:
            self.record.count(elsewhere=1)
        return regions

    def _submit(self, task: LabelledTask, regions: list[dict[str, Any]], lead_time: float) -> None:
        params = f"project={self.project.number}"
        body: dict[str, Any] = {"result": regions, "lead_time": lead_time}
        draft = self._post("draft", f"/api/tasks/{task.number}/drafts?{params}", body)
        if draft is not None:
            body["draft_id"] = draft["id"]
        if self._post("submit", f"/api/tasks/{task.number}/annotations/?{params}", body) is not None:
            self.record.count(submitted=1)

    def _get(self, what: str, address: str, **params: Any) -> None:
        request = self.person.web.build_request("GET", address)
        if params:
            request.url = request.url.copy_merge_params(params)
        self._send(what, request)

    def _post(self, what: str, address: str, body: Any) -> dict[str, Any] | None:
        answer = self._send(what, self.person.web.build_request("POST", address, json=body, timeout=120))
        return dict(answer.json()) if answer is not None else None

    def _send(self, what: str, request: httpx.Request) -> httpx.Response | None:
        begun = time.perf_counter()
        try:
            answer = self.person.web.send(request)
        except httpx.HTTPError as error:
            self.record.errors.append(f"{what}: {error!r}")
            return None
        self.record.took(what, time.perf_counter() - begun)
        if not answer.is_success:
            self.record.errors.append(f"{what}: {answer.status_code} {answer.text[:200]}")
            return None
        return answer


def _xyxy(one: dict[str, Any], size_wh: tuple[int, int]) -> Xyxy:
    width, height = size_wh
    value = one["value"]
    x0, y0 = value["x"] * width / 100, value["y"] * height / 100
    return x0, y0, x0 + value["width"] * width / 100, y0 + value["height"] * height / 100
