"""What web and engine say to each other: small frozen values, free of torch.

All coordinates are pixels of the picture as the annotator sees it.
"""

from __future__ import annotations

import base64
import zlib
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tator_ml.engine.detections import DetectAsk, Detected, Detection, VlmStatus
from tator_sdk.errors import TatorError
from tator_sdk.geometry import MaskArray, Xyxy

__all__ = [
    "Answer", "Ask", "Busy", "DetectAsk", "Detected", "Detection", "EmbedAsk", "Embedded", "EngineError",
    "EngineStatus", "Flight", "Found", "ImageBoxes", "OutOfMemory", "PackedMask", "Prompt", "SegmenterStatus",
    "Status", "Stopped", "Superseded", "UnknownHead", "UnknownImage", "Verdict", "VlmStatus", "WarmStatus",
]  # fmt: skip


class EngineError(TatorError):
    """The engine could not answer; the message is for a person."""


class UnknownImage(EngineError):
    """The engine does not hold the picture's bytes; send them and ask again."""


class UnknownHead(EngineError):
    """The engine does not hold the head; send its files and ask again."""


class Busy(EngineError):
    """Too much is waiting already."""


class Superseded(EngineError):
    """A newer request, which contains this one's prompts, is answered in its place."""


class Stopped(EngineError):
    """The question was taken back, or nobody waits for its answer any more."""


class OutOfMemory(EngineError):
    """The device's memory does not suffice, whatever was given up."""


@dataclass(frozen=True)
class PackedMask:
    """A mask as compressed bits.

    Attributes:
        size_wh: width and height in pixels.
        bits: base64 of the zlib-compressed ``numpy.packbits`` of the rows.
    """

    size_wh: tuple[int, int]
    bits: str

    @classmethod
    def pack(cls, mask: MaskArray) -> PackedMask:
        """Mask (H, W) → bits."""
        packed = zlib.compress(np.packbits(mask).tobytes(), 1)
        return cls((mask.shape[1], mask.shape[0]), base64.b64encode(packed).decode())

    def unpack(self) -> MaskArray:
        """Bits → mask (H, W)."""
        width, height = self.size_wh
        packed = np.frombuffer(zlib.decompress(base64.b64decode(self.bits)), np.uint8)
        return np.unpackbits(packed, count=width * height).reshape(height, width).astype(bool)


@dataclass(frozen=True)
class Prompt:
    """What a person pointed at on one picture.

    Attributes:
        points_xy: x and y of each point; ``positive`` has one entry for each.
        positive: False marks a point that is not on the object.
        box_xyxy: a drawn box, or None.
    """

    points_xy: tuple[tuple[float, float], ...] = ()
    positive: tuple[bool, ...] = ()
    box_xyxy: Xyxy | None = None


@dataclass(frozen=True)
class Ask:
    """One question to the engine.

    Attributes:
        image: content hash of the picture.
        prompts: each is one object; all are answered in one decoder batch where they allow it.
        refine: decode masks; otherwise boxes are taken as they are.
        classify: ask the class head about each box.
        masks: send masks back, not boxes alone.
        head: version of the class head to ask; None for the engine's own.
        segmenter: its name as in the settings, e.g. ``sam2-tiny``; None for the engine's own.
        task: whose prompts these are, in the words of whoever asks (project and task); empty supersedes nothing.
        prompt_ids: ids of the prompts. A request of the same task that has not started, and whose ids are all
            among these, is dropped as :class:`Superseded`.
        label: that the person chose. How large its objects usually are, which the head knows, decides between masks
            that the segmenter trusts alike.
        lane: ``click`` for a person's prompt; ``batch`` for a step of something longer, behind all clicks and
            preloads, and waited for as long as that takes.
    """

    image: str
    prompts: tuple[Prompt, ...]
    refine: bool = True
    classify: bool = True
    masks: bool = False
    head: str | None = None
    segmenter: str | None = None
    task: str = ""
    prompt_ids: tuple[str, ...] = ()
    label: str | None = None
    lane: Literal["click", "batch"] = "click"


@dataclass(frozen=True)
class ImageBoxes:
    """Boxes on one picture: its content hash, and pixels."""

    image: str
    xyxy: tuple[Xyxy, ...]


@dataclass(frozen=True)
class EmbedAsk:
    """Boxes to be cropped and embedded.

    Attributes:
        encoder: name for ``encoders.load``.
        items: pictures with their boxes.
        margin, square: the crop recipe.
    """

    encoder: str
    items: tuple[ImageBoxes, ...]
    margin: float = 0.08
    square: bool = True


@dataclass(frozen=True, eq=False)
class Embedded:
    """Embeddings in the order of the boxes asked about.

    Attributes:
        encoder: ``Encoder.version`` that made them.
        embeddings: (N, dim) float16 of L2 norm 1.
    """

    encoder: str
    embeddings: NDArray[np.float16]


@dataclass(frozen=True)
class Verdict:
    """What the class head says of one box.

    Attributes:
        label: the class, or None when the head abstains.
        probability: of the most probable class, calibrated, 0..1.
        top: the most probable classes with their probabilities, best first.
    """

    label: str | None
    probability: float
    top: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Found:
    """The answer to one prompt.

    Attributes:
        xyxy: the box: around the mask's largest part, or the drawn one where the guard held it.
        refined: whether ``xyxy`` comes from a mask.
        quality: the segmenter's estimate of the mask's IoU, 0..1; None without a mask.
        reason: why a drawn box was kept, in words for the log and the strip.
        mask: the mask's largest part where it was asked for and used.
        verdict: of the class head where it was asked.
    """

    xyxy: Xyxy
    refined: bool
    quality: float | None = None
    reason: str | None = None
    mask: PackedMask | None = None
    verdict: Verdict | None = None


@dataclass(frozen=True)
class Answer:
    """Answers in the order of the prompts.

    Attributes:
        found: None for a prompt on which the segmenter sees nothing.
        size_wh: the picture's width and height.
        model_version: names segmenter and head with their versions.
        was_warm: whether the picture's embedding was ready, in memory or on disk.
        seconds: time spent in the engine.
        came_from: where the embedding was: ``memory``, ``disk``, or ``encoded`` now.
    """

    found: tuple[Found | None, ...]
    size_wh: tuple[int, int]
    model_version: str
    was_warm: bool
    seconds: float
    came_from: str = "memory"


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
