"""Figures for Prometheus: what the web process counted, and what the engine and the jobs say when they are asked."""

from __future__ import annotations

import time
from collections import Counter as Counts
from collections.abc import Callable, Iterator

import redis
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from tator_ml.engine.messages import Status
from tator_ml.jobs.connection import connect_redis
from tator_ml.jobs.records import JobRecords
from tator_ml.last_hour import QUANTILES, LastHour, Latency
from tator_sdk.settings import Settings

JOBS_SECONDS = 5.0  # for how long a count of jobs is believed
MOST_JOBS = 1000
BUCKETS = (0.01, 0.02, 0.03, 0.05, 0.08, 0.12, 0.2, 0.3, 0.5, 0.8, 1.2, 2, 3, 5, 10, 30, 90)


class Metrics:
    """A registry of its own, so that several applications in one process do not meet."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.last_hour = LastHour()
        self._seconds = Histogram(
            "tator_request_seconds",
            "From request to answer at the web process.",
            ("assist", "lane"),
            buckets=BUCKETS,
            registry=self.registry,
        )
        self._requests = Counter(
            "tator_requests", "Tasks that Label Studio asked about.", ("outcome",), registry=self.registry
        )

    def answered(self, assist: str, lane: str, outcome: str, seconds: float) -> None:
        """Count one answer.

        Args:
            assist: points, boxes, strokes, tweak, text, exemplars, opened, batch, withheld or event.
            lane: click, preload, words or batch: the engine's that it goes through.
            outcome: answered, empty, refused (with a sentence), superseded, busy or error.
            seconds: from request to answer.
        """
        if outcome in ("answered", "empty"):
            self.last_hour.add(lane, assist, seconds)
        self._seconds.labels(assist, lane).observe(seconds)
        self._requests.labels(outcome).inc()

    def watch(self, settings: Settings, status: Callable[[], Status]) -> None:
        """Show the engine's and the jobs' figures as well."""
        self.registry.register(_Engine(status))
        self.registry.register(_Jobs(settings))

    def page(self) -> bytes:
        """Everything in Prometheus' text format."""
        return generate_latest(self.registry)


class _Engine(Collector):
    def __init__(self, status: Callable[[], Status]) -> None:
        self._status = status

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        status = self._status()
        yield _gauge("tator_engine_ready", "Whether the models are loaded.", int(status.ready))
        if not status.ready:  # its counters would begin at nothing again
            return
        came_from = {"memory": status.hits, "disk": status.disk_hits, "encoded": status.misses}
        said = "Clicks by where the picture's embedding came from."
        yield _family(CounterMetricFamily, "tator_pictures", said, "source", came_from)
        for name, said, value in (
            ("evictions", "Pictures that left memory to make room.", status.evictions),
            ("encodings", "Pictures that were encoded.", status.encodings),
            ("superseded", "Requests dropped because a newer one contained them.", status.superseded),
            ("dropped_preloads", "Preloads dropped before they started.", status.dropped_preloads),
        ):
            yield CounterMetricFamily(f"tator_{name}", said, value=value)
        yield _family(CounterMetricFamily, "tator_memory_steps", "How often memory ran short, by what was given up.",
                      "step", dict(status.memory_steps))  # fmt: skip
        yield _family(GaugeMetricFamily, "tator_waiting", "What waits for the device.", "lane", status.waiting)
        yield _family(GaugeMetricFamily, "tator_oldest_seconds", "Age of what waits longest.", "lane",
                      status.oldest_seconds)  # fmt: skip
        yield _latencies(status.latencies)
        memory: dict[str, float | None] = {
            "engine": status.process_bytes,
            "warm": sum(one.nbytes for one in status.warm),
            "budget": status.budget_bytes,
            "device": status.device_bytes,
            "device_free": status.device_free_bytes,
            "store": status.store_bytes,
        }
        yield _family(GaugeMetricFamily, "tator_bytes", "Memory, and the store of embeddings on disk.", "of",
                      {name: value for name, value in memory.items() if value is not None})  # fmt: skip
        yield _gauge("tator_warm_pictures", "Pictures in memory.", len(status.warm))


class _Jobs(Collector):
    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._at = float("-inf")
        self._counts: Counts[str] = Counts()

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        if time.monotonic() - self._at > JOBS_SECONDS:
            try:
                with connect_redis(self._settings) as connection:
                    self._counts = Counts(one.status for one in JobRecords(connection).list(limit=MOST_JOBS))
            except redis.RedisError:
                return
            self._at = time.monotonic()
        statuses = ("queued", "running", "done", "failed", "cancelled")
        counts = {status: float(self._counts[status]) for status in statuses}
        yield _family(GaugeMetricFamily, "tator_jobs", "Jobs in the history, by status.", "status", counts)


def _latencies(found: dict[str, Latency]) -> Metric:
    said = "From a request's entering its lane to its end, in the last hour: percentiles by lane."
    family = GaugeMetricFamily("tator_lane_seconds", said, labels=["lane", "quantile"])
    for lane, one in found.items():
        for quantile, value in zip(QUANTILES, (one.p50, one.p95, one.p99), strict=True):
            family.add_metric([lane, f"{quantile:g}"], value)
    return family


def _gauge(name: str, said: str, value: float) -> Metric:
    return GaugeMetricFamily(name, said, value=value)


def _family(
    kind: type[CounterMetricFamily] | type[GaugeMetricFamily],
    name: str,
    said: str,
    label: str,
    values: dict[str, int] | dict[str, float],
) -> Metric:
    family = kind(name, said, labels=[label])
    for one, value in values.items():
        family.add_metric([one], value)
    return family
