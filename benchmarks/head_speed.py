"""How quickly heads learn: embedding, a retrain from the cache, and the way from a webhook to the next click."""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.material import PHOTO_ENCODER, yolo_folder
from benchmarks.report import Figure
from demo.environment import ENVIRONMENT
from demo.labelled import LabelledProject, draw_pictures, labelled_project
from demo.stack import DemoSettings, DemoStack
from tator_ml.engine import encoders
from tator_ml.engine.crops import CropRecipe
from tator_ml.engine.embedding import cut_crops
from tator_ml.engine.encoders.base import Encoder
from tator_ml.engine.engine import Engine
from tator_ml.engine.messages import EmbedAsk, ImageBoxes
from tator_ml.engine.segmenters import starter
from tator_ml.jobs import JobRecord, JobRecords, connect_redis
from tator_ml.learning.embedder import Embedder, LocalEncoder
from tator_ml.learning.embeddings import EmbeddingCache, ImageBox
from tator_ml.learning.stores import image_store, project_choices
from tator_sdk.requests import HeadTraining
from tator_sdk.settings import Settings
from training.clip.train import train
from training.job import LocalJob
from training.starter.names import DISPLAY_NAMES
from training.starter.scenes import SceneSettings

SPEED_SCENES = SceneSettings(size_wh=(640, 480), min_side=40, max_side=200, objects=(5, 9))
RATE_SEEDS, RETRAIN_SEEDS = range(9_780_000, 9_780_060), range(9_782_000, 9_782_350)
LIVE_SEEDS = range(9_790_000, 9_792_150)
LIVE_SCENES = SceneSettings(objects=(4, 7))
BATCH, ROUNDS, TRIES = 64, 3, 6
ENCODER = f"transformers:{PHOTO_ENCODER}" if PHOTO_ENCODER.exists() else "starter"


def embed_rate() -> list[Figure]:
    """Boxes a second through cache and engine, against the bare encoder on crops that are cut already."""
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(_env_file=None, home=Path(folder))
        store = image_store(settings)
        truth = draw_pictures(settings.home / "pictures", RATE_SEEDS, SPEED_SCENES, DISPLAY_NAMES.__getitem__)
        boxes = [
            ImageBox(store.put((settings.home / "pictures" / name).read_bytes()), box.xyxy)
            for name, (objects, _) in sorted(truth.items())
            for box in objects
        ]
        encoder = encoders.load(ENCODER)
        engine = Engine(settings, store, starter.load(starter.STARTER_WEIGHTS, "cpu"), None)
        try:
            asks = tuple(ImageBoxes(box.image, (box.xyxy,)) for box in boxes)
            crops = cut_crops(EmbedAsk(ENCODER, asks), encoder, store.get, settings.image_max_pixels)
            engine.embed(EmbedAsk(ENCODER, asks[:8]))  # loads the encoder
            bare, whole = [], []
            for number in range(ROUNDS):  # by turns, so that a noisy moment meets both
                bare.append(_seconds(partial(_bare_loop, encoder, crops)))
                cache = EmbeddingCache(settings.home / f"cache-{number}", 2**26)
                embedder = Embedder(engine, cache, ENCODER, CropRecipe(), BATCH)
                whole.append(_seconds(partial(embedder.embed, boxes)))
                cache.close()
        finally:
            engine.close()
    ratio = statistics.median(bare) / statistics.median(whole)
    return [
        Figure("head.embed_rate", ratio, "of bare", "higher", 0.9),
        Figure("head.embed_boxes_per_second", len(boxes) / statistics.median(whole), "1/s", "higher"),
    ]


def _bare_loop(encoder: Encoder, crops: list[NDArray[np.uint8]]) -> None:
    for at in range(0, len(crops), BATCH):
        encoder.embed(crops[at : at + BATCH])


def cached_retrain() -> list[Figure]:
    """The same training again, with every embedding known: its share of the first one's time."""
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(_env_file=None, home=Path(folder) / "home", encoder=ENCODER)
        images = Path(folder) / "images"
        boxes = yolo_folder(images, RETRAIN_SEEDS, SPEED_SCENES)
        computes = LocalEncoder(image_store(settings), "cpu", settings.image_max_pixels)
        computes.encoder_version(ENCODER)  # loading belongs to neither
        request = HeadTraining(images_path=images)
        seconds = [_seconds(lambda: train(request, settings, LocalJob(settings, "bench"), computes)) for _ in range(3)]
    again = statistics.median(seconds[1:])
    return [
        Figure("head.cached_retrain", again / seconds[0], "of first", "lower", 0.05),
        Figure("head.first_training_s", seconds[0], "s", "lower"),
        Figure("head.cached_retrain_s", again, "s", "lower"),
        Figure("head.retrain_boxes", boxes, "boxes", "higher"),
    ]


def webhook_to_active() -> list[Figure]:
    """A real Label Studio with 10,000 labelled boxes: one more annotation, and how long until clicks use its head."""
    if not (ENVIRONMENT / "bin" / "label-studio").exists():
        raise SystemExit("This figure needs a real Label Studio: make test builds its environment.")
    with (
        tempfile.TemporaryDirectory(dir="/tmp") as folder,
        DemoStack(DemoSettings(Path(folder), studio_port=18080, tator={"port": 19090}), _say) as stack,
        labelled_project(
            stack, "Ten thousand boxes", LIVE_SEEDS, DISPLAY_NAMES.__getitem__, list(DISPLAY_NAMES.values()),
            LIVE_SCENES, annotated=True, report=_say,
        ) as project,
    ):  # fmt: skip
        return _timed(stack, project)


def _timed(stack: DemoStack, project: LabelledProject) -> list[Figure]:
    choices = project_choices(stack.settings)
    choices.choose(project.number, train_after=0)
    begun = time.monotonic()
    project.studio.ml.train(project.backend)
    _ended(stack, project, 1)
    first = time.monotonic() - begun
    choices.choose(project.number, train_after=1)
    waited, decided = [], []
    for number, task in enumerate(project.tasks[:TRIES], 2):
        before = choices.get(project.number).head
        begun = time.monotonic()
        project.annotate([task])
        job = _ended(stack, project, number)
        decided.append(time.monotonic() - begun)
        head = choices.get(project.number).head
        if head == before:  # the gate found it worse by a hair: the time to that is no time to use
            print(f"not activated: {job.result and job.result.get('reason')} {job.error or ''}", flush=True)
            continue
        answer = project.ask(task, [task.result()[0]])
        waited.append(time.monotonic() - begun)
        if not str(answer.get("model_version")).endswith(f"+{head}"):
            raise SystemExit(f"The new head {head} is not in use: {answer.get('model_version')}")
    if not waited:
        raise SystemExit("No head was activated, so nothing can be said about the time until one is used.")
    return [
        Figure("head.webhook_to_active_s", statistics.median(waited), "s", "lower", 10.0),
        Figure("head.webhook_to_active_worst_s", max(waited), "s", "lower"),
        Figure("head.webhook_to_decision_s", statistics.median(decided), "s", "lower"),
        Figure("head.webhook_boxes", sum(len(task.boxes) for task in project.tasks), "boxes", "higher", 10_000),
        Figure("head.start_training_s", first, "s", "lower"),
    ]


def _ended(stack: DemoStack, project: LabelledProject, count: int) -> JobRecord:
    """The newest of ``count`` jobs of the project, once it has ended."""
    with connect_redis(stack.settings) as connection:
        deadline = time.monotonic() + 600
        while time.monotonic() < deadline:
            found = JobRecords(connection).list(project=project.number)
            if len(found) >= count and found[0].over:
                if found[0].status != "done":
                    raise SystemExit(f"The training failed: {found[0].error}")
                return found[0]
            time.sleep(0.05)
    raise SystemExit("The training did not end.")


def _seconds(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def _say(said: str) -> None:
    print(f"  {said}", file=sys.stderr, flush=True)
