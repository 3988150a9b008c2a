"""What an engine says of itself: what is in flight, in memory, and how long it took.

All are frozen values that travel from engine to web; free of torch.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from tator_ml.engine.detections import VlmStatus
from tator_ml.last_hour import Latency


@dataclass(frozen=True)
class WarmStatus:
    """One warm picture.

    Attributes:
        image: content hash.
        nbytes: held for it in memory.
        segmenter: ``Segmenter.version`` that made its embedding.
        pinned: whether somebody looks at it, so that others make room first.
    """

    image: str
    nbytes: int
    segmenter: str = ""
    pinned: bool = False


@dataclass(frozen=True)
class Flight:
    """One request that is on its way to the device, or on it.

    Attributes:
        lane: ``click``, ``preload``, ``words`` or ``batch``.
        state: ``preparing`` while its picture is read and decoded, ``waiting`` for its turn, or ``running``.
        seconds: since it came.
        what: it is, in words.
        image: content hash of the picture, where it is about one.
        segmenter: name of the one it asks for; empty for the engine's own.
        task: whose it is, as ``project/task``; of a preload ``project/picture``; empty where nobody said.
    """

    lane: str
    state: Literal["preparing", "waiting", "running"]
    seconds: float
    what: str = ""
    image: str = ""
    segmenter: str = ""
    task: str = ""


@dataclass(frozen=True)
class SegmenterStatus:
    """One segmenter that was asked for since the engine's start.

    Attributes:
        name: as in the settings.
        version: with the digits of its weights.
        loaded: whether it is in memory now.
        idle_seconds: since it was last asked for.
    """

    name: str
    version: str
    loaded: bool
    idle_seconds: float


@dataclass(frozen=True)
class EngineStatus:
    """One of several engines that work as one.

    Attributes:
        address: where it listens.
        ready: whether it answers and its models are loaded.
        device: its name.
        waiting: how much waits for the device, in all lanes.
        warm: pictures in memory.
        warm_bytes: that they take, of ``budget_bytes``.
        clicks: answered since the start.
        process_bytes: resident memory of its process.
        error: why it is not ready.
    """

    address: str
    ready: bool
    device: str = ""
    waiting: int = 0
    warm: int = 0
    warm_bytes: int = 0
    budget_bytes: int = 0
    clicks: int = 0
    process_bytes: int = 0
    error: str | None = None

    @classmethod
    def of(cls, address: str, status: Status) -> EngineStatus:
        """What an engine says of itself, in short."""
        return cls(
            address=address,
            ready=status.ready,
            device=status.device,
            waiting=sum(status.waiting.values()),
            warm=len(status.warm),
            warm_bytes=sum(one.nbytes for one in status.warm),
            budget_bytes=status.budget_bytes,
            clicks=status.clicks,
            process_bytes=status.process_bytes,
            error=status.error,
        )


@dataclass(frozen=True)
class Status:
    """What the engine is doing now.

    Attributes:
        ready: whether the models are loaded.
        device: its name.
        model_version: of the engine's own segmenter and head.
        waiting: how much waits, by lane (``click``, ``preload``, ``words``, ``batch``).
        warm: pictures in memory, most recently used first.
        budget_bytes: of memory for them.
        encodings: how often a picture was encoded since the start.
        error: why the engine is not ready.
        segmenter, head: versions of the engine's own.
        hits: clicks whose picture was in memory.
        disk_hits: clicks whose embedding was on disk.
        misses: clicks that had to wait for an encoding.
        evictions: pictures that left memory to make room.
        store_bytes: embeddings on disk; ``store_budget_bytes`` is the most that is kept.
        oldest_seconds: age of what waits longest, by lane; 0 where nothing waits.
        latencies: how long requests took in the last hour, waiting included, by lane; of several engines the slowest's.
        process_bytes: resident memory of the engine's process.
        device_bytes: memory of the accelerator held by this process; None without one, as
            ``device_free_bytes`` and ``device_total_bytes``.
        segmenters: those that were asked for.
        vlms: vision-language models that were asked for.
        memory_steps: how often memory ran short and what was given up, by name of the step.
        superseded: requests dropped because a newer one contained them.
        dropped_preloads: preloads dropped before they started.
        clicks: answered since the start.
        since_click_seconds: since the last one came; None before the first.
        system_free_bytes: of the memory of the engine's machine, what can be had; ``system_total_bytes`` is all of it.
        flights: what is in flight, what runs first, then in the order of its turns; of very many, the first.
        engines: each by itself, where several work as one; else empty.
    """

    ready: bool
    device: str
    model_version: str
    waiting: dict[str, int]
    warm: tuple[WarmStatus, ...]
    budget_bytes: int
    encodings: int
    error: str | None = None
    segmenter: str = ""
    head: str = ""
    hits: int = 0
    disk_hits: int = 0
    misses: int = 0
    evictions: int = 0
    store_bytes: int = 0
    store_budget_bytes: int = 0
    oldest_seconds: dict[str, float] = field(default_factory=dict)
    latencies: dict[str, Latency] = field(default_factory=dict)
    process_bytes: int = 0
    device_bytes: int | None = None
    device_free_bytes: int | None = None
    device_total_bytes: int | None = None
    segmenters: tuple[SegmenterStatus, ...] = ()
    vlms: tuple[VlmStatus, ...] = ()
    memory_steps: dict[str, int] = field(default_factory=dict)
    superseded: int = 0
    dropped_preloads: int = 0
    clicks: int = 0
    since_click_seconds: float | None = None
    system_free_bytes: int | None = None
    system_total_bytes: int | None = None
    flights: tuple[Flight, ...] = ()
    engines: tuple[EngineStatus, ...] = ()

    def version_with(self, head: str | None, segmenter: str | None = None) -> str:
        """Model version of a project with a head or segmenter of its own, each None for the engine's.

        A segmenter that was never loaded has no version yet: its name stands for it.
        """
        if not self.segmenter or not (head or segmenter):
            return self.model_version
        known = {one.name: one.version for one in self.segmenters}
        return f"{known.get(segmenter, segmenter) if segmenter else self.segmenter}+{head or self.head}"
