"""Clicks: how long from request to answer, on warm pictures, after a restart, with long requests, from many people."""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import psutil
import torch

from benchmarks.material import as_xyxy
from benchmarks.report import Figure
from label_config.build import build
from tator_ml.engine import encoders
from tator_ml.engine.classify import HeadClassifier
from tator_ml.engine.client import EngineClient
from tator_ml.engine.head import Head
from tator_ml.engine.loading import STARTER_HEAD
from tator_ml.engine.messages import EngineError, Prompt
from tator_ml.engine.refine import segment_points
from tator_ml.engine.segmenters.starter import STARTER_WEIGHTS, load
from tator_ml.images.store import ImageStore
from tator_ml.processes import Supervisor
from tator_ml.up import start_back, start_front
from tator_sdk.geometry import Xyxy, iou_xyxy
from tator_sdk.settings import Settings
from training.starter.names import DISPLAY_NAMES
from training.starter.prompts import center_point
from training.starter.scenes import Scene, SceneSettings, draw_scene

CONFIG = "configs/sam2.1/sam2.1_hiera_t.yaml"
SCENES = SceneSettings(size_wh=(768, 576), min_side=80, max_side=260, objects=(4, 7), camouflage=0.1)
FIRST_SEED = 9_830_000
PICTURES, CLICKS = 4, 6
PEOPLE, SECONDS = 16, 60.0
LARGE_REGIONS = 300
MEMORY_FROM, MEMORY_TO = 500, 2000
WARM_BYTES = 192 * 2**20  # full before the first look at the memory, so that only what leaks can grow


@dataclass(frozen=True)
class Task:
    """A task whose picture lies in an allowed folder, with what it shows."""

    number: int
    path: Path
    scene: Scene

    def body(self, context: dict[str, Any] | None, extra: Sequence[dict[str, Any]] = ()) -> dict[str, Any]:
        """A request of Label Studio about it."""
        annotations = [{"id": 1, "result": list(extra)}] if extra else []
        task = {"id": self.number, "data": {"image": str(self.path)}, "annotations": annotations, "drafts": []}
        return {
            "tasks": [task],
            "project": "1.1700000000",
            "label_config": build("boxes", list(DISPLAY_NAMES.values()), None),
            "params": {"login": None, "password": None, "context": context},
        }

    def click(self, index: int) -> dict[str, Any]:
        """A point well inside an object, as the editor sends it."""
        height, width = self.scene.image.shape[:2]
        x, y = center_point(self.scene.mask(index))
        value = {"x": 100 * x / width, "y": 100 * y / height, "width": 0.26, "keypointlabels": ["Star"]}
        return {
            "id": f"{self.number}-{index}-{time.monotonic_ns()}", "from_name": "point", "to_name": "image",
            "type": "keypointlabels", "original_width": width, "original_height": height, "image_rotation": 0,
            "value": value, "is_positive": True,
        }  # fmt: skip


@dataclass
class Station:
    """A running Tator without a Label Studio before it: what is timed here is Tator's own part."""

    settings: Settings
    parts: Supervisor
    folder: Path
    web: httpx.Client
    engine: EngineClient
    made: int = 0
    errors: list[str] = field(default_factory=list)

    def task(self, settings: SceneSettings = SCENES) -> Task:
        """A task with a picture that nobody has seen."""
        self.made += 1
        scene = draw_scene(FIRST_SEED + self.made, settings)
        while not scene.objects:
            self.made += 1
            scene = draw_scene(FIRST_SEED + self.made, settings)
        path = self.folder / f"{self.made}.png"
        cv2.imwrite(str(path), scene.image[..., ::-1])
        return Task(self.made, path, scene)

    def ask(self, task: Task, index: int = 0, extra: Sequence[dict[str, Any]] = ()) -> tuple[float, dict[str, Any]]:
        """Click on an object; seconds from request to answer, and the answer."""
        content = json.dumps(task.body({"result": [task.click(index)]}, extra))
        begun = time.perf_counter()
        answer = self.web.post("/predict", content=content, headers={"Content-Type": "application/json"})
        seconds = time.perf_counter() - begun
        answer.raise_for_status()
        return seconds, answer.json()["results"][0]

    def open(self, task: Task) -> None:
        """Open a task, and wait until its picture is warm."""
        before = self.engine.status().encodings
        self.web.post("/predict", json=task.body(None)).raise_for_status()
        until(lambda: self.engine.status().encodings > before, 120)
        until(lambda: not any(self.engine.status().waiting.values()), 120)


@contextmanager
def station(segmenter: str, **chosen: Any) -> Iterator[Station]:
    """Start Redis, engine, web and worker in a folder of their own."""
    with tempfile.TemporaryDirectory(dir="/tmp") as home:  # socket paths are short
        folder = Path(home) / "pictures"
        folder.mkdir()
        wanted = {"home": Path(home), "port": 19190, "segmenter": segmenter, "image_roots": (folder,), "offline": True}
        settings = Settings.model_validate({**Settings(_env_file=None).model_dump(), **wanted, **chosen})
        if segmenter == "sam2-tiny":
            random_sam2(settings.weights_dir)
        with Supervisor(settings.home, say) as parts:
            start_back(settings, parts)
            settings = start_front(settings, parts)
            engine = EngineClient(settings, ImageStore(settings.home / "images", settings.image_store_bytes))
            with httpx.Client(base_url=settings.backend_url, timeout=120) as web:
                yield Station(settings, parts, folder, web, engine)
            engine.close()


def random_sam2(folder: Path) -> None:
    """The published architecture and file layout with random weights: right for timing."""
    from sam2.build_sam import build_sam2

    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(5)
    torch.save({"model": build_sam2(CONFIG, device="cpu").state_dict()}, folder / "sam2.1_hiera_tiny.pt")


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
                answer = web.post("/predict", json=task.body({"result": [task.click(index)]}))
                taken.append(time.perf_counter() - begun)
                regions = answer.json()["results"][0]["result"] if answer.is_success else []
                if not regions:
                    errors.append(answer.text[:200])
                elif not on_its_picture(task, regions[0]):
                    wrong.append(regions[0])

    threads = [threading.Thread(target=person, args=(mine,)) for mine in tasks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
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


def resident(one: Station) -> tuple[int, int]:
    processes = [process_of(one, name) for name in ("engine", "web")]
    family = [member for process in processes for member in [process, *process.children(recursive=True)]]
    return sum(member.memory_info().rss for member in family), sum(member.num_fds() for member in family)


def process_of(one: Station, name: str) -> psutil.Process:
    return psutil.Process(int(json.loads((one.settings.home / "run" / f"{name}.json").read_text())["pid"]))


def kill_engine(one: Station) -> None:
    process = process_of(one, "engine")
    process.kill()
    process.wait(10)


def revived(one: Station) -> bool:
    """What `tator up` does when a part has ended."""
    one.parts.revive()
    try:
        return one.engine.status().ready
    except EngineError:
        return False


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


def seconds(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def quantile(values: Sequence[float], share: float) -> float:
    return float(np.quantile(values, share))


def until(met: Callable[[], Any], patience: float) -> None:
    deadline = time.monotonic() + patience
    while not met():
        if time.monotonic() > deadline:
            raise SystemExit("Something did not happen in time.")
        time.sleep(0.01)


def say(said: str) -> None:
    print(f"  {said}", file=sys.stderr, flush=True)


def measure() -> list[Figure]:
    return [*real_architecture(), *starter_figures()]
