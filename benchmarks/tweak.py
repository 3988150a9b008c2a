"""Tightening: what `tator tweak` and `/tweak` reach on loosely drawn boxes, how fast, and what clicks beside it wait.

A real Label Studio, starter weights, generated scenes. Rates are those of the whole way, Label Studio included; the
reference of the job's rate is a bare loop of encoder and batched decoder over the same boxes in this process.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.report import Figure
from demo.labelled import LabelledProject, LabelledTask, labelled_project, region
from demo.pictures import SETTINGS
from demo.stack import DemoSettings, DemoStack
from label_config.build import build
from tator_ml.engine.refine import segment_boxes
from tator_ml.engine.segmenters.starter import STARTER_WEIGHTS, load
from tator_ml.learning.stores import project_choices
from tator_ml.prompts.tweaking import STEP_SECONDS
from tator_sdk.geometry import Xyxy, iou_xyxy
from tator_sdk.requests import Tweak
from training.job import LocalJob
from training.journal import lines_of
from training.starter.names import DISPLAY_NAMES
from training.tweak.job import tweak
from training.tweak.look import FOUND_FILE
from training.tweak.undo import restore

SEEDS = range(9_940_000, 9_940_030)
LOOSE = 0.1  # of a box's side, on each side
MANY = 300  # boxes of one command
IDLE_CLICKS = 30


def measure() -> list[Figure]:
    """All figures."""
    with (
        tempfile.TemporaryDirectory() as folder,
        DemoStack(DemoSettings(Path(folder), studio_port=18080, tator={"port": 19090}), print) as stack,
        labelled_project(
            stack, "Bench tweak", SEEDS, DISPLAY_NAMES.__getitem__, list(DISPLAY_NAMES.values()), SETTINGS
        ) as project,
    ):
        project_choices(stack.settings).choose(project.number, train_after=0)  # no training beside what is timed
        project.studio.projects.update(project.number, label_config=build("all", list(DISPLAY_NAMES.values()), None))
        return [*_job(stack, project), *_command(project)]


def _job(stack: DemoStack, project: LabelledProject) -> list[Figure]:
    tasks = project.tasks
    truth: dict[tuple[int, str], Xyxy] = {}
    before: dict[int, list[Any]] = {}
    for task in tasks:
        result = [region(one.label, _loosely(one.xyxy, task), task.size_wh) for one in task.boxes]
        number = int(project.studio.annotations.create(task.number, result=result).id)
        before[number] = result
        truth |= {(task.number, row["id"]): one.xyxy for row, one in zip(result, task.boxes, strict=True)}
    settings = stack.settings
    job = LocalJob(settings, f"tweak-{project.number}-bench")
    begun = time.monotonic()
    dry = tweak(Tweak(project=project.number, dry_run=True), settings, job)
    looked = time.monotonic() - begun
    begun = time.monotonic()
    done = tweak(Tweak(project=project.number, in_place=True), settings, job)  # goes on with what was found
    written = time.monotonic() - begun
    begun = time.monotonic()
    undone = restore(settings, job.folder)
    restored = time.monotonic() - begun
    exact = sum(list(project.studio.annotations.get(number).result) == result for number, result in before.items())
    boxes = [
        (iou_xyxy(tuple(box["before"]), true), iou_xyxy(tuple(box["after"]), true), box["moved"])
        for _, line in lines_of(job.folder / FOUND_FILE)
        for part in line["annotations"]
        for box in part["boxes"]
        for true in [truth[line["task"], box["region"]]]
    ]
    moved = [(one, other) for one, other, has in boxes if has]
    loop = _bare_loop(stack, project)
    rate = dry["boxes"] / looked
    return [
        Figure("tweak.boxes", len(boxes), "boxes", "higher"),
        Figure("tweak.iou_before", statistics.mean(one for one, _, _ in boxes), "IoU", "higher"),
        Figure("tweak.iou_after", statistics.mean(other for _, other, _ in boxes), "IoU", "higher"),
        Figure("tweak.moved_share", len(moved) / len(boxes), "share", "higher"),
        Figure("tweak.worse_share", sum(other < one for one, other in moved) / len(moved), "share", "lower", 0.05),
        Figure("tweak.look_rate", rate, "boxes/s", "higher"),
        Figure("tweak.look_vs_loop", rate / loop, "ratio", "higher"),
        Figure("tweak.in_place_rate", done["changed"] / written, "annotations/s", "higher"),
        Figure("tweak.undo_rate", undone.restored / restored, "annotations/s", "higher"),
        Figure("tweak.not_restored", len(before) - exact, "annotations", "lower", 0),
    ]


def _command(project: LabelledProject) -> list[Figure]:
    """One command over many boxes of one picture, and clicks on another picture meanwhile."""
    crowded, other = project.tasks[0], project.tasks[1]
    for annotation in project.studio.annotations.list(id=crowded.number):
        project.studio.annotations.delete(annotation.id)
    many = [crowded.boxes[number % len(crowded.boxes)] for number in range(MANY)]
    result = [region(one.label, _loosely(one.xyxy, crowded), crowded.size_wh) for one in many]
    project.studio.annotations.create(crowded.number, result=result)
    for task in (crowded, other):
        project.ask(task, [_click(task)])  # warm
    idle = [_timed(project, other) for _ in range(IDLE_CLICKS)]
    words = {"id": "words", "from_name": "prompt", "to_name": "image", "type": "textarea", "origin": "manual",
             "value": {"text": ["/tweak all"]}}  # fmt: skip
    project.web.timeout = 110  # longer than Label Studio waits for us
    begun = time.monotonic()
    alone = project.ask(crowded, [words])
    seconds = time.monotonic() - begun
    beside = []
    with ThreadPoolExecutor(1) as pool:
        working = pool.submit(project.ask, crowded, [words])
        time.sleep(0.3)
        while not working.done():
            beside.append(_timed(project, other))
    working.result()  # that it was answered
    delay = statistics.median(beside) - statistics.median(idle)
    return [
        Figure("tweak.command_boxes", len(alone["result"]), "boxes answered", "higher"),
        Figure("tweak.command_seconds", seconds, "s", "lower", 90),
        Figure("tweak.click_idle", 1000 * statistics.median(idle), "ms", "lower"),
        Figure("tweak.click_beside", 1000 * statistics.median(beside), "ms", "lower"),
        Figure("tweak.click_beside_worst", 1000 * max(beside), "ms", "lower"),
        Figure("tweak.click_delay", delay / STEP_SECONDS, "steps", "lower", 2),
    ]


def _bare_loop(stack: DemoStack, project: LabelledProject) -> float:
    """Boxes a second of encoder and decoder alone, all boxes of a picture in one batch."""
    segmenter = load(STARTER_WEIGHTS, "cpu", "starter")
    folder = stack.folder.parent / "bench-tweak"
    pictures = [np.asarray(Image.open(path).convert("RGB")) for path in sorted(folder.glob("*.png"))]
    begun, boxes = time.monotonic(), 0
    for task, pixels in zip(project.tasks, pictures, strict=True):
        drawn = [_loosely(one.xyxy, task) for one in task.boxes]
        boxes += len(segment_boxes(segmenter, segmenter.encode(pixels), drawn))
    return boxes / (time.monotonic() - begun)


def _loosely(xyxy: Xyxy, task: LabelledTask) -> Xyxy:
    (x0, y0, x1, y1), (width, height) = xyxy, task.size_wh
    wide, high = LOOSE * (x1 - x0), LOOSE * (y1 - y0)
    return max(0, x0 - wide), max(0, y0 - high), min(width, x1 + wide), min(height, y1 + high)


def _click(task: LabelledTask) -> dict[str, Any]:
    (x0, y0, x1, y1), (width, height) = task.boxes[0].xyxy, task.size_wh
    value = {"x": 50 * (x0 + x1) / width, "y": 50 * (y0 + y1) / height, "width": 0.26}
    return {
        "id": f"click-{time.monotonic_ns()}", "from_name": "point", "to_name": "image", "type": "keypointlabels",
        "original_width": width, "original_height": height, "image_rotation": 0, "is_positive": True,
        "value": {**value, "keypointlabels": [task.boxes[0].label]},
    }  # fmt: skip


def _timed(project: LabelledProject, task: LabelledTask) -> float:
    begun = time.monotonic()
    project.ask(task, [_click(task)])
    return time.monotonic() - begun
