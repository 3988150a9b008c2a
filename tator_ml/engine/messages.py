"""What web and engine say to each other: small frozen values, free of torch.

All coordinates are pixels of the picture as the annotator sees it.
"""

from __future__ import annotations

import base64
import zlib
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tator_ml.engine.detections import DetectAsk, Detected, Detection, VlmStatus
from tator_ml.engine.status import EngineStatus, Flight, SegmenterStatus, Status, WarmStatus
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
