"""A running Tator without a Label Studio before it, and people who click: what is timed is Tator's own part."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import psutil
import torch

from label_config.build import build
from tator_ml.engine.client import EngineClient
from tator_ml.engine.messages import EngineError
from tator_ml.images.store import ImageStore
from tator_ml.running.processes import Supervisor
from tator_ml.up import start_back, start_front
from tator_sdk.settings import Settings
from training.starter.names import DISPLAY_NAMES
from training.starter.prompts import center_point
from training.starter.scenes import Scene, SceneSettings, draw_scene

CONFIG = "configs/sam2.1/sam2.1_hiera_t.yaml"
SCENES = SceneSettings(size_wh=(768, 576), min_side=80, max_side=260, objects=(4, 7), camouflage=0.1)
FIRST_SEED = 9_830_000


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


def resident(one: Station) -> tuple[int, int]:
    processes = [process_of(one, name) for name in ("engine", "web")]
    family = [member for process in processes for member in [process, *process.children(recursive=True)]]
    return sum(member.memory_info().rss for member in family), sum(member.num_fds() for member in family)


def process_of(one: Station, name: str) -> psutil.Process:
    return psutil.Process(pid_of(one.settings, name))


def pid_of(settings: Settings, name: str) -> int:
    return int(json.loads((settings.home / "run" / f"{name}.json").read_text())["pid"])


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
