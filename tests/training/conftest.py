"""Redis and an engine as `tator up` starts them, workers of the test's own, and pictures that take a while to embed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from tator_ml.engine.client import EngineClient
from tator_ml.engine.messages import EngineError
from tator_ml.jobs import JobRecord, connect_redis, start
from tator_ml.learning.registry import HeadEntry
from tator_ml.learning.stores import embedding_cache, head_registry, image_store
from tator_ml.running.processes import Supervisor
from tator_ml.up import start_back
from tator_sdk.requests import HeadTraining
from tator_sdk.settings import Settings
from tests.jobs.conftest import Jobs, until
from training.starter.scenes import CLASSES, SceneSettings, draw_scene

PICTURES = 32
COLUMNS, ROWS, TILE = 4, 3, 192


@dataclass
class Training(Jobs):
    """Head trainings of one test, over the module's Redis and engine."""

    parts: Supervisor | None = None

    def train(self, request: HeadTraining) -> JobRecord:
        return start(self.settings, "clip", request.model_dump(mode="json"), title="Train")

    def middle(self, job_id: str, what: str, share: float = 0.25) -> JobRecord:
        """The record once this step is on its way, and not yet near its end."""

        def under_way() -> JobRecord | None:
            record = self.records.get(job_id)
            assert not record.over, record
            return record if record.what == what and record.total and record.done >= share * record.total else None

        record = until(under_way, 40)
        assert record.done < 0.95 * record.total, "it was too quick to be hit in the middle"
        return record

    def heads(self) -> list[HeadEntry]:
        return head_registry(self.settings).list()

    def cached(self) -> int:
        """How many embeddings are kept."""
        cache = embedding_cache(self.settings)
        try:
            return len(cache)
        finally:
            cache.close()

    def engine(self) -> int:
        """Process of the engine."""
        return int(json.loads((self.settings.home / "run" / "engine.json").read_text())["pid"])

    def revive_engine(self) -> None:
        """What `tator up` does when its engine has ended."""
        assert self.parts is not None
        before = self.engine()
        until(lambda: (self.parts.revive(), self.engine() != before)[1])
        client = EngineClient(self.settings, image_store(self.settings))

        def ready() -> bool:
            try:
                return client.status().ready
            except EngineError:
                return False

        until(ready, 60)
        client.close()


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fits in one thread, here and in the workers: beside a busy engine, several mostly wait for each other."""
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")
    with threadpool_limits(1, "blas"):
        yield


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``images`` of a YOLO folder: mosaics of a few scenes, each with noise of its own."""
    folder = tmp_path_factory.mktemp("mosaics")
    for part in ("images", "labels"):
        (folder / part).mkdir()
    (folder / "labelmap.txt").write_text("\n".join(CLASSES))
    how = SceneSettings(size_wh=(TILE, TILE), min_side=20, max_side=60, objects=(3, 5), camouflage=0)
    scenes = [draw_scene(seed, how) for seed in range(16)]
    width, height = COLUMNS * TILE, ROWS * TILE
    for number in range(PICTURES):
        rng = np.random.default_rng([0xC11F, number])
        canvas = rng.integers(-8, 9, (height, width, 3), np.int16)
        lines = []
        for place, chosen in enumerate(rng.choice(len(scenes), COLUMNS * ROWS, replace=False)):
            left, top = TILE * (place % COLUMNS), TILE * (place // COLUMNS)
            canvas[top : top + TILE, left : left + TILE] += scenes[chosen].image
            for one in scenes[chosen].objects:
                x0, y0, x1, y1 = (edge + offset for edge, offset in zip(one.xyxy, (left, top) * 2, strict=True))
                middle = f"{(x0 + x1) / 2 / width} {(y0 + y1) / 2 / height}"
                lines.append(f"{CLASSES.index(one.shape)} {middle} {(x1 - x0) / width} {(y1 - y0) / height}\n")
        pixels = canvas.clip(0, 255).astype(np.uint8)
        cv2.imwrite(str(folder / "images" / f"{number:02}.png"), pixels[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 1])
        (folder / "labels" / f"{number:02}.txt").write_text("".join(lines))
    return folder / "images"


@pytest.fixture(scope="module")
def back(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Settings, Supervisor]]:
    """Redis and an engine with the starter models; no Label Studio, no web process."""
    settings = Settings(home=tmp_path_factory.mktemp("t"), redis_url=None, device="cpu", torch_threads=1)
    with Supervisor(settings.home, print) as parts:
        start_back(settings, parts)
        yield settings, parts


@pytest.fixture
def training(back: tuple[Settings, Supervisor]) -> Iterator[Training]:
    settings, parts = back
    with connect_redis(settings) as connection:
        running = Training(settings, connection, parts=parts)
        try:
            yield running
        finally:
            running.kill_workers()
