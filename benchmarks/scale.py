"""How many annotators one backend bears: clicks a second and their latency, with one engine and with two."""

from __future__ import annotations

import os
import statistics
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import httpx
from pydantic import SecretStr

from benchmarks.report import Figure
from benchmarks.station import Station, Task, quantile, say, station, until
from tator_ml.engine.client import EngineClient
from tator_ml.engine.messages import EngineError
from tator_ml.learning.stores import image_store
from tator_ml.running.processes import free_port
from tator_ml.up import tator

PEOPLE = (1, 2, 4, 8, 16)
SECONDS = 8.0
PICTURES = 16


def clicks(one: Station, tasks: list[Task], people: int) -> list[float]:
    """Seconds of each click, of people who click again as soon as they are answered."""
    taken: list[float] = []
    ending = time.monotonic() + SECONDS

    def person(number: int) -> None:
        with httpx.Client(base_url=one.settings.backend_url, timeout=120) as web:
            step = 0
            while time.monotonic() < ending:
                task = tasks[(number + step) % len(tasks)]
                body = task.body({"result": [task.click(step % len(task.scene.objects))]})
                body["tasks"][0]["id"] = 1000 * (number + 1) + step  # nobody's click takes another's place
                begun = time.perf_counter()
                web.post("/predict", json=body).raise_for_status()
                taken.append(time.perf_counter() - begun)
                step += 1

    with ThreadPoolExecutor(people) as pool:
        list(pool.map(person, range(people)))  # what went wrong in one of them goes wrong here
    return taken


def one_more_each(one: Station, named: str) -> Iterator[Figure]:
    """The figures of a backend at growing numbers of people."""
    tasks = [one.task() for _ in range(PICTURES)]
    for task in tasks:
        one.ask(task)
    best = 0.0
    for people in PEOPLE:
        taken = clicks(one, tasks, people)
        best = max(best, len(taken) / SECONDS)
        say(f"{named}, {people} at once: {len(taken) / SECONDS:.1f} clicks a second, p95 {quantile(taken, 0.95):.3f} s")
        yield Figure(f"scale.{named}_{people}_p95_ms", 1000 * quantile(taken, 0.95), "ms", "lower")
        yield Figure(f"scale.{named}_{people}_p50_ms", 1000 * statistics.median(taken), "ms", "lower")
        yield Figure(f"scale.{named}_{people}_rate", len(taken) / SECONDS, "clicks a second", "higher")
    yield Figure(f"scale.{named}_most", best, "clicks a second", "higher")


def _ready(engine: EngineClient) -> bool:
    try:
        return engine.status().ready
    except EngineError:
        return False


def measure() -> Iterator[Figure]:
    """All figures; each engine computes with one thread, so that two have a core each."""
    with station("starter", torch_threads=1) as one:
        yield from one_more_each(one, "one_engine")
    first, second = (f"127.0.0.1:{free_port(port)}" for port in (19600, 19620))
    key = SecretStr("benchmark-benchmark")
    with station("starter", torch_threads=1, engine_address=first, engine_key=key) as one:
        own = one.settings.model_copy(update={"engine_address": second})
        environment = {**os.environ, **own.environment()}
        process = subprocess.Popen(tator("engine"), env=environment, start_new_session=True)
        try:
            until(partial(_ready, EngineClient(own, image_store(own))), 120)
            both = one.settings.model_copy(update={"engine_address": f"{first},{second}", "port": free_port(19640)})
            web = subprocess.Popen(tator("serve"), env={**os.environ, **both.environment()}, start_new_session=True)
            try:
                until(lambda: _answers(both.backend_url), 60)
                with httpx.Client(base_url=both.backend_url, timeout=120) as client:
                    pair = replace(one, settings=both, web=client)
                    yield from one_more_each(pair, "two_engines")
            finally:
                web.terminate()
                web.wait(10)
        finally:
            process.terminate()
            process.wait(10)


def _answers(address: str) -> bool:
    try:
        return httpx.get(f"{address}/health", timeout=2).is_success
    except httpx.HTTPError:
        return False
