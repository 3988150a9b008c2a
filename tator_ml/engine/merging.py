"""What several engines say of themselves, as one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol, TypeVar

from tator_ml.engine.messages import EngineStatus, Status
from tator_ml.engine.wire import parse_address
from tator_ml.last_hour import Latency
from tator_sdk.settings import LOOPBACK_HOSTS


def merge(found: Sequence[tuple[EngineStatus, Status | None]]) -> Status:
    """One status: counts and bytes are sums, ages the greatest, names those of the first engine that is ready.

    Engines of one machine share its memory, which counts once; of models by the same name, the one in memory is told.

    Args:
        found: each engine with what it says; None for one that is away.
    """
    said = [status for _, status in found if status is not None]
    ready = [status for status in said if status.ready] or said
    first = ready[0]
    machines = {_machine(about.address): one for about, one in found if one is not None and one.ready}.values()
    clicked = [one.since_click_seconds for one in ready if one.since_click_seconds is not None]
    return Status(
        ready=first.ready,
        device=", ".join(dict.fromkeys(one.device for one in ready)),
        model_version=first.model_version,
        waiting=_sums(one.waiting for one in ready),
        warm=tuple(picture for one in ready for picture in one.warm),
        budget_bytes=sum(one.budget_bytes for one in ready),
        encodings=sum(one.encodings for one in ready),
        error=first.error,
        segmenter=first.segmenter,
        head=first.head,
        hits=sum(one.hits for one in ready),
        disk_hits=sum(one.disk_hits for one in ready),
        misses=sum(one.misses for one in ready),
        evictions=sum(one.evictions for one in ready),
        store_bytes=sum(one.store_bytes for one in ready),
        store_budget_bytes=sum(one.store_budget_bytes for one in ready),
        oldest_seconds=_greatest(one.oldest_seconds for one in ready),
        latencies=_slowest(one.latencies for one in ready),
        process_bytes=sum(one.process_bytes for one in ready),
        device_bytes=_sum(one.device_bytes for one in ready),
        device_free_bytes=_sum(one.device_free_bytes for one in ready),
        device_total_bytes=_sum(one.device_total_bytes for one in ready),
        segmenters=_by_name(sorted((one for each in ready for one in each.segmenters), key=lambda one: one.loaded)),
        vlms=_by_name(
            sorted((one for each in ready for one in each.vlms), key=lambda one: (one.loaded, one.writing or 0))
        ),
        memory_steps=_sums(one.memory_steps for one in ready),
        superseded=sum(one.superseded for one in ready),
        dropped_preloads=sum(one.dropped_preloads for one in ready),
        clicks=sum(one.clicks for one in ready),
        since_click_seconds=min(clicked, default=None),
        system_free_bytes=_sum(one.system_free_bytes for one in machines),
        system_total_bytes=_sum(one.system_total_bytes for one in machines),
        flights=tuple(flight for one in ready for flight in one.flights),
        engines=tuple(about for about, _ in found),
    )


class _Named(Protocol):
    @property
    def name(self) -> str: ...


Model = TypeVar("Model", bound=_Named)


def _by_name(models: Iterable[Model]) -> tuple[Model, ...]:
    """Each name once, the last that has it."""
    return tuple({one.name: one for one in models}.values())


def _machine(address: str) -> str:
    """What an engine's address says of its machine: empty for this one."""
    place = parse_address(address)
    return "" if isinstance(place, str) or place[0] in LOOPBACK_HOSTS else place[0]


def _sums(parts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for part in parts:
        for name, count in part.items():
            total[name] += count
    return dict(total)


def _greatest(parts: Iterable[Mapping[str, float]]) -> dict[str, float]:
    found: dict[str, float] = {}
    for part in parts:
        for name, value in part.items():
            found[name] = max(value, found.get(name, 0.0))
    return found


def _slowest(parts: Iterable[Mapping[str, Latency]]) -> dict[str, Latency]:
    """Percentiles cannot be added up: by lane those of the engine whose 95th is the longest, with the counts' sum."""
    found: dict[str, Latency] = {}
    for part in parts:
        for name, one in part.items():
            other = found.get(name, one)
            slower, count = max(one, other, key=lambda latency: latency.p95), one.count + (name in found) * other.count
            found[name] = replace(slower, count=count)
    return found


def _sum(parts: Iterable[int | None]) -> int | None:
    known = [one for one in parts if one is not None]
    return sum(known) if known else None
