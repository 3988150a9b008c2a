"""A project as it might stand after some weeks, made up on the demo's pictures; Label Studio knows nothing of it."""

from __future__ import annotations

import random
import time
from contextlib import closing
from typing import Any

from demo.pictures import SETTINGS, classes, truth_of
from demo.stack import DemoStack
from tator_ml.images.store import ImageStore
from tator_ml.learning.stores import project_choices
from tator_ml.quality.comparison import Comparison
from tator_ml.quality.doubts import Doubt, Doubts
from tator_ml.quality.outcomes import Submitted
from tator_ml.quality.store import QualityStore, quality_store
from tator_ml.suggestions import Suggested
from tator_sdk.geometry import Xyxy

PEOPLE = {9001: "Ada Moreno", 9002: "Ben Okafor", 9003: "Chiara Lang"}
WEEK_SECONDS = 7 * 86400
BACKGROUND = "points", "boxes", "text", "tweak"


def region(name: str, label: str, xyxy: Xyxy) -> dict[str, Any]:
    width, height = SETTINGS.size_wh
    value = {
        "x": 100 * xyxy[0] / width, "y": 100 * xyxy[1] / height, "width": 100 * (xyxy[2] - xyxy[0]) / width,
        "height": 100 * (xyxy[3] - xyxy[1]) / height, "rotation": 0, "rectanglelabels": [label],
    }  # fmt: skip
    return {
        "id": name, "type": "rectanglelabels", "from_name": "box", "to_name": "image", "original_width": width,
        "original_height": height, "value": value,
    }  # fmt: skip


def moved(draw: random.Random, xyxy: Xyxy, by: float) -> Xyxy:
    wide, high = xyxy[2] - xyxy[0], xyxy[3] - xyxy[1]
    x0, y0, x1, y1 = xyxy
    shifts = [draw.gauss(0, by) for _ in range(4)]
    return x0 + shifts[0] * wide, y0 + shifts[1] * high, x1 + shifts[2] * wide, y1 + shifts[3] * high


def make_up(stack: DemoStack, project: int, weeks: int) -> int:
    """Fill the record of a project that does not exist, and give its number."""
    draw = random.Random(7)
    images = ImageStore(stack.settings.home / "images", stack.settings.image_store_bytes)
    scenes = sorted(path for path in stack.folder.iterdir() if path.suffix == ".jpg" or path.suffix == ".png")
    begun = time.time() - weeks * WEEK_SECONDS
    comparison = Comparison(0.3, 11, begun + WEEK_SECONDS / 2)
    with closing(quality_store(stack.settings)) as store:
        store.set_people(PEOPLE)
        store.begin_comparison(project, comparison)
        project_choices(stack.settings).choose(project, comparison=comparison)
        doubts: list[Doubt] = []
        for task in range(1, 40 * weeks + 1):
            scene = scenes[task % len(scenes)]
            image = images.put(scene.read_bytes())
            at = begun + task * WEEK_SECONDS / 40
            _label(draw, store, project, task, at, image, truth_of(scene), comparison, doubts)
        Doubts(store).replace_all(project, doubts)
    return project


def _label(
    draw: random.Random, store: QualityStore, project: int, task: int, at: float, image: str, truth: list[Any],
    comparison: Comparison, doubts: list[Doubt],
) -> None:  # fmt: skip
    assisted = not comparison.draws(task) if at > comparison.since else draw.random() < 0.8
    version = f"starter+head-p{project}-{1 + int(task / 80)}"
    result, suggested = [], []
    for number, one in enumerate(truth):
        name = f"{task}-{number}"
        shown = moved(draw, one.xyxy, 0.012)
        luck = draw.random() * (1 + task / 400)
        label = one.label if luck > 0.12 else draw.choice(classes())
        if assisted and draw.random() < 0.9:
            item = region(name, label, shown)
            assist = draw.choice(BACKGROUND)
            suggested.append(Suggested(name, at - 60, version, item, (label,), assist, frozenset({name}), image))
        final = shown if luck > 0.45 else moved(draw, one.xyxy, 0.05)
        if luck > 0.28 or luck < 0.2:
            result.append(region(name, one.label, final))
        else:
            result.append(region(f"{name}-own", one.label, moved(draw, one.xyxy, 0.02)))
        if draw.random() < 0.03:
            other = draw.choice([each for each in classes() if each != one.label])
            given, sure = draw.uniform(0, 0.1), draw.uniform(0.75, 0.99)
            doubts.append(
                Doubt(task, task, name, other, given, one.label, sure, version.partition("+")[2], image, one.xyxy,
                      SETTINGS.size_wh)
            )  # fmt: skip
    seconds = max(1, len(truth)) * draw.lognormvariate(1.5 if assisted else 2.1, 0.45)
    person = draw.choice(list(PEOPLE))
    store.put(project, task, Submitted(task, at, at, result, person, seconds), {})
    store.judge(project, task, suggested)
