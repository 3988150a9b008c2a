"""Clicks: how long from request to answer, on warm pictures, after a restart, with long requests, from many people."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import httpx
import numpy as np

from benchmarks.clicks_training import while_training
from benchmarks.clicks_warm import whole_project
from benchmarks.material import as_xyxy
from benchmarks.report import Figure
from benchmarks.station import (
    CONFIG,
    Station,
    Task,
    kill_engine,
    quantile,
    resident,
    revived,
    seconds,
    station,
    until,
)  # fmt: skip
from tator_ml.engine import encoders
from tator_ml.engine.classify import HeadClassifier
from tator_ml.engine.head import Head
from tator_ml.engine.loading import STARTER_HEAD
from tator_ml.engine.messages import Prompt
from tator_ml.engine.refine import segment_points
from tator_ml.engine.segmenters.starter import STARTER_WEIGHTS, load
from tator_sdk.geometry import Xyxy, iou_xyxy
from training.starter.prompts import center_point
from training.starter.scenes import SceneSettings

PICTURES, CLICKS = 4, 6
PEOPLE, SECONDS = 16, 60.0
LARGE_REGIONS = 300
MEMORY_FROM, MEMORY_TO = 500, 2000
WARM_BYTES = 192 * 2**20  # full before the first look at the memory, so that only what leaks can grow


def real_architecture() -> list[Figure]:
    """SAM 2.1 tiny at 1024 pixels, against the upstream predictor in this process."""
    from sam2.build_sam import build_sam2
    from sam2.sam2_image_predictor import SAM2ImagePredictor

    with station("sam2-tiny") as one:
        checkpoint = one.settings.weights_dir / "sam2.1_hiera_tiny.pt"
        predictor = SAM2ImagePredictor(build_sam2(CONFIG, str(checkpoint), device="cpu"))
        bare, reencoding, first, warm, large = [], [], [], [], []
        regions = long_result(LARGE_REGIONS)
        tasks = [one.task() for _ in range(PICTURES)]
        for task in tasks:
            one.open(task)
            reencoding.append(seconds(partial(predictor.set_image, task.scene.image)))
            first.append(one.ask(task)[0])
            for number in range(CLICKS):  # by turns, so that a noisy moment meets all of them
                index = number % len(task.scene.objects)
                point = np.array([center_point(task.scene.mask(index))])
                bare.append(seconds(partial(predictor.predict, point, np.array([1]))))
                warm.append(one.ask(task, index)[0])
                large.append(one.ask(task, index, regions)[0])
        encodings = one.engine.status().encodings
        kill_engine(one)
        until(partial(revived, one), 120)
        restarted = [one.ask(task)[0] for task in tasks]
        again = one.engine.status().encodings
    median = statistics.median(warm)
    return [
        Figure("clicks.warm_p50", median / statistics.median(bare), "of bare decode", "lower", 1.5),
        Figure("clicks.warm_p99", quantile(warm, 0.99) / statistics.median(bare), "of bare decode", "lower", 3.0),
        Figure("clicks.preloaded_first", statistics.median(first) / median, "of warm", "lower", 1.2),
        Figure("clicks.after_restart", statistics.median(restarted) / median, "of warm", "lower", 2.0),
        Figure("clicks.against_reencode", statistics.median(reencoding) / median + 1, "times", "higher", 10),
        Figure("clicks.large_request", statistics.median(large) / median, "of small", "lower", 1.2),
        Figure("clicks.encodings", encodings / PICTURES, "a picture", "lower", 1.0),
        Figure("clicks.encodings_after_restart", again, "encodings", "lower", 0),
        Figure("clicks.warm_ms", 1000 * median, "ms", "lower"),
        Figure("clicks.bare_decode_ms", 1000 * statistics.median(bare), "ms", "lower"),
        Figure("clicks.encode_ms", 1000 * statistics.median(reencoding), "ms", "lower"),
    ]


def starter_figures() -> list[Figure]:
    """The starter: overhead over its own work, many people at once, and what stays in memory."""
    with station("starter", warm_bytes=WARM_BYTES) as one:
        return [overhead(one), *many_people(one), *memory(one)]


def overhead(one: Station) -> Figure:
    """A warm click, less the decode and classification that it is made of, measured in this process."""
    segmenter = load(STARTER_WEIGHTS, "cpu")
    classifier = HeadClassifier(encoders.load("starter"), Head.load(STARTER_HEAD))
    over = []
    for _ in range(10):
        task = one.task()
        one.open(task)
        embedding = segmenter.encode(task.scene.image)
        for index in range(len(task.scene.objects)):
            point = center_point(task.scene.mask(index))

            def own(point: tuple[float, float] = point, embedding: Any = embedding, task: Task = task) -> None:
                segment = segment_points(segmenter, embedding, Prompt((point,), (True,)))
                if segment is not None:
                    classifier.classify(task.scene.image, [segment.xyxy])

            over.append(one.ask(task, index)[0] - seconds(own))
    return Figure("clicks.starter_overhead_ms", 1000 * statistics.median(over), "ms", "lower", 20)


def many_people(one: Station) -> list[Figure]:
    """Sixteen annotators on pictures of their own for a minute; each answer is compared with the truth."""
    tasks = [[one.task() for _ in range(4)] for _ in range(PEOPLE)]
    taken: list[float] = []
    errors, wrong = [], []
    ending = time.monotonic() + SECONDS

    def person(mine: list[Task]) -> None:
        number = 0
        with httpx.Client(base_url=one.settings.backend_url, timeout=120) as web:
            while time.monotonic() < ending:
                task = mine[number // 6 % len(mine)]
                index = number % len(task.scene.objects)
                number += 1
                begun = time.perf_counter()
                try:
                    answer = web.post("/predict", json=task.body({"result": [task.click(index)]}))
                except httpx.HTTPError as error:
                    errors.append(f"{type(error).__name__}: {error}")
                    continue
                taken.append(time.perf_counter() - begun)
                regions = answer.json()["results"][0]["result"] if answer.is_success else []
                if not regions:
                    errors.append(answer.text[:200])
                elif not on_its_picture(task, regions[0]):
                    wrong.append(regions[0])

    with ThreadPoolExecutor(PEOPLE) as pool:
        list(pool.map(person, tasks))  # what went wrong in one of them goes wrong here
    return [
        Figure("clicks.many_errors", len(errors), "errors", "lower", 0),
        Figure("clicks.many_wrong", len(wrong), "answers", "lower", 0),
        Figure("clicks.many_answers", len(taken), "answers", "higher"),
        Figure("clicks.many_p50_ms", 1000 * statistics.median(taken), "ms", "lower"),
        Figure("clicks.many_p99_ms", 1000 * quantile(taken, 0.99), "ms", "lower"),
    ]


def on_its_picture(task: Task, region: dict[str, Any]) -> bool:
    """Whether an answer fits one of this picture's objects: a mix-up of pictures would fit none."""
    height, width = task.scene.image.shape[:2]
    value = region["value"]
    x0, y0 = value["x"] * width / 100, value["y"] * height / 100
    box: Xyxy = (x0, y0, x0 + value["width"] * width / 100, y0 + value["height"] * height / 100)
    return any(iou_xyxy(box, as_xyxy(np.array(item.xyxy))) > 0.3 for item in task.scene.objects)


def memory(one: Station) -> list[Figure]:
    """Resident memory and open files of engine and web while two thousand pictures go by."""
    seen = {}
    small = SceneSettings()
    for number in range(1, MEMORY_TO + 1):
        task = one.task(small)
        one.ask(task)
        task.path.unlink()
        if number in (MEMORY_FROM, MEMORY_TO):
            seen[number] = resident(one)
    (before, files_before), (after, files_after) = seen[MEMORY_FROM], seen[MEMORY_TO]
    return [
        Figure("clicks.memory_growth", after / before - 1, "share", "lower", 0.05),
        Figure("clicks.files_growth", files_after - files_before, "files", "lower", 4),
    ]


def long_result(count: int) -> list[dict[str, Any]]:
    """As many polygons as make a request of a megabyte."""
    rng = np.random.default_rng(1)
    return [
        {
            "id": f"p{number}", "from_name": "box", "to_name": "image", "type": "polygonlabels",
            "original_width": 768, "original_height": 576, "image_rotation": 0,
            "value": {"points": rng.uniform(0, 100, (85, 2)).tolist(), "polygonlabels": ["Star"], "closed": True},
        }
        for number in range(count)
    ]  # fmt: skip


def measure() -> Iterator[Figure]:
    """Part by part: all of it takes a quarter of an hour."""
    for part in (real_architecture, while_training, starter_figures, whole_project):
        yield from part()
