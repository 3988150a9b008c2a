"""The dashboard: how long pages take with a long history, and what a hundred open ones cost whoever clicks.

Real Redis, engine (starter weights), worker and gunicorn. A click beside open dashboards is compared with one without
in blocks that take turns, so that a noisy moment of the machine meets both.
"""

from __future__ import annotations

import json
import random
import selectors
import socket
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import redis
from safetensors.numpy import save_file

from benchmarks.report import Figure
from benchmarks.station import Station, seconds, station, until
from tator_ml.engine.head import Head
from tator_ml.engine.loading import STARTER_HEAD
from tator_ml.jobs import connect_redis
from tator_ml.jobs.records import ENDED, INDEX, log_key, points_key, record_key
from tator_ml.learning.stores import head_registry
from tator_ml.sam3.registry import Sam3Metadata, sam3_registry
from tator_ml.vlm.registry import RunMetadata, qwen_registry
from tator_ml.web.dashboard.frame import PAGES
from tator_sdk.requests import HeadTraining

JOBS, HEADS, QWENS, SAM3S = 500, 60, 20, 20
OPENINGS = 15
OPEN, BLOCKS, CLICKS = 100, 8, 25
KINDS = ("clip", "tweak", "relabel", "prelabel")


def measure() -> Iterator[Figure]:
    """All figures."""
    with station("starter") as one:
        with connect_redis(one.settings) as connection:
            fill_jobs(connection)
        fill_models(one)
        yield from pages(one)
        yield from clicks_beside_dashboards(one)


def pages(one: Station) -> Iterator[Figure]:
    """The median time to open each page, with everything on record."""
    slowest = 0.0
    for module in PAGES:
        name = module.PAGE.name
        took = [seconds(lambda name=name: one.web.get(f"/tator/{name}").raise_for_status()) for _ in range(OPENINGS)]  # type: ignore[misc]
        slowest = max(slowest, statistics.median(took[1:]))
        yield Figure(f"dashboard.{name}", 1000 * statistics.median(took[1:]), "ms", "lower")
    took = [seconds(lambda: one.web.get("/tator/jobs/clip-1-0").raise_for_status()) for _ in range(OPENINGS)]
    slowest = max(slowest, statistics.median(took[1:]))
    yield Figure("dashboard.one_job", 1000 * statistics.median(took[1:]), "ms", "lower")
    yield Figure("dashboard.page", 1000 * slowest, "ms", "lower", 300)


def clicks_beside_dashboards(one: Station) -> Iterator[Figure]:
    """Clicks with a hundred streams open, all of them read, against clicks without."""
    tasks = [one.task() for _ in range(4)]
    for task in tasks:
        one.open(task)
    alone: list[float] = []
    beside: list[float] = []
    for block in range(2 * BLOCKS):
        opened = block % 2 == 1
        with dashboards(one, OPEN) if opened else ExitStack():
            took = beside if opened else alone
            for number in range(CLICKS):
                task = tasks[number % len(tasks)]
                took.append(one.ask(task, number % len(task.scene.objects))[0])
                time.sleep(0.02)  # people look between clicks; what wakes each second must meet some of them
    yield Figure("dashboard.click_alone_ms", 1000 * statistics.median(alone), "ms", "lower")
    yield Figure("dashboard.click_beside_ms", 1000 * statistics.median(beside), "ms", "lower")
    ratio = statistics.median(beside) / statistics.median(alone)
    yield Figure("dashboard.click_beside_100", ratio, "of alone", "lower", 1.10)
    worst = float(np.quantile(beside, 0.95) / np.quantile(alone, 0.95))
    yield Figure("dashboard.click_beside_100_p95", worst, "of alone", "lower")


@contextmanager
def dashboards(one: Station, count: int) -> Iterator[None]:
    """So many open streams, half of Now and half of Jobs; one thread reads them all as they come."""
    ended = threading.Event()
    with ExitStack() as opened, selectors.DefaultSelector() as selector:
        told: set[int] = set()
        for place in range(count):
            listener = opened.enter_context(socket.create_connection((one.settings.host, one.settings.port)))
            address = ("/tator/now/live", "/tator/jobs/live")[place % 2]
            listener.sendall(f"GET {address} HTTP/1.1\r\nHost: {one.settings.host}\r\n\r\n".encode())
            selector.register(listener, selectors.EVENT_READ)

        def read() -> None:
            while not ended.is_set():
                for key, _ in selector.select(0.2):
                    part = key.fileobj.recv(2**16)  # type: ignore[union-attr]
                    if b"data: {" in part:
                        told.add(key.fd)

        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        until(lambda: len(told) == count, 30)
        time.sleep(1.0)
        yield
        ended.set()
        reader.join()
    time.sleep(2.5)  # within a second each is noticed to be gone


def fill_jobs(connection: redis.Redis) -> None:
    """Jobs that have ended, as they are kept, some with long logs, curves and reports."""
    draw, now = random.Random(5), time.time()
    pipe = connection.pipeline()
    request = json.dumps(HeadTraining(project=1).model_dump(mode="json"))
    for number in range(JOBS):
        kind, project = KINDS[number % len(KINDS)], 1 + number % 5
        job_id = f"{kind}-{project}-{number}"
        report = {"boxes": 900, "tasks": 90, "moved": 40, "pairs": [{"from": "a", "to": "b", "count": 2}] * 200}
        ended = now - 600 * number
        fields: dict[str, Any] = {
            "id": job_id, "kind": kind, "function": "none", "title": f"{kind} of project {project}", "project": project,
            "request": request, "unique": "", "timeout_seconds": 60, "status": draw.choice(["done", "failed"]),
            "created": ended - 400, "started": ended - 300, "ended": ended, "attempt": 1, "delivery": 1,
            "done": 300, "total": 300, "what": "writing", "host": "bench", "result": json.dumps(report), "error": "",
            "log_end": 300,
        }  # fmt: skip
        pipe.hset(record_key(job_id), mapping=cast(Any, fields))
        pipe.zadd(INDEX, {job_id: fields["created"]})
        pipe.zadd(ENDED, {job_id: ended})
        pipe.rpush(log_key(job_id), *(f"step {step}: loss {1 / (step + 1):.4f}" for step in range(300)))
        points = [json.dumps({"step": step, "loss": 1 / (step + 1), "rate": 1e-4}) for step in range(500)]
        pipe.rpush(points_key(job_id), *points)
    pipe.execute()


def fill_models(one: Station) -> None:
    """Heads, Qwen and SAM 3 runs of five projects, with reports of the usual size and one active in each project."""
    settings = one.settings
    head, heads, names = Head.load(STARTER_HEAD), head_registry(settings), [f"class {number}" for number in range(20)]
    table = {name: {"precision": 0.9, "recall": 0.8, "f1": 0.85, "support": 30} for name in names}
    metrics = {"macro_f1": 0.85, "accuracy": 0.9, "classes": table, "confusion": [[1] * 20] * 20}
    seen = [{"task": task, "image": "a" * 64, "xyxy": [0, 0, 9, 9], "label": "class 1"} for task in range(2000)]
    for number in range(HEADS):
        entry = heads.add(head, 1 + number % 5, {"metrics": metrics, "request": {}, "gate": {}}, seen)
        heads.activate(1 + number % 5, entry.version, "bench")

    def write(folder: Path) -> None:
        (folder / "adapter").mkdir()
        weights = np.random.default_rng(len(list(folder.parent.iterdir()))).normal(size=(512, 512)).astype(np.float32)
        save_file({"weight": weights}, folder / "adapter" / "adapter_model.safetensors")

    common: dict[str, Any] = {
        "id": "", "label": "bench", "classes": tuple(names), "model_id": "org/base", "created_at": "",
        "latest_checkpoint": "adapter", "source_dataset": "project 1",
    }  # fmt: skip
    asked = RunMetadata(
        **common, system_prompt="Look.", system_prompt_noise=0.05, dataset_context="", use_qlora=False,
        max_image_dim=1024, max_detections_per_sample=200, image_type="photograph",
    )  # fmt: skip
    for number in range(QWENS):
        qwen_registry(settings).add(replace(asked, project=1 + number % 5), {"map50": 0.5}, write, seen)

    def write_whole(folder: Path) -> None:
        write(folder)
        (folder / "adapter").rename(folder / "model")
        (folder / "model" / "adapter_model.safetensors").rename(folder / "model" / "model.safetensors")
        (folder / "model" / "config.json").write_text("{}")

    about = Sam3Metadata(**{**common, "latest_checkpoint": "model"}, method="lora", resolution=1008)
    for number in range(SAM3S):
        sam3_registry(settings).add(replace(about, project=1 + number % 5), {"ap50": 0.5}, write_whole, seen)
