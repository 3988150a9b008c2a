"""What web, jobs and engine say to each other about concepts: phrases and exemplars; as :mod:`messages`, free of torch.

A concept is what SAM 3 (https://arxiv.org/abs/2511.16719) is asked for: a short noun phrase, boxes of objects that
look alike, or both. Its answer is every instance of it on the picture.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tator_ml.engine.masks import BoxMask
from tator_sdk.geometry import Xyxy

THRESHOLD = 0.5
"""Least score of an instance."""
LIMIT = 20
"""Most instances in an answer."""
MOST_CONCEPTS = 200
"""In one question."""


@dataclass(frozen=True)
class Concept:
    """One thing to find every instance of.

    Attributes:
        phrase: a short noun phrase; empty where boxes alone say it.
        exemplars: boxes around objects of the kind, pixels of the picture.
        negatives: boxes around what is not meant.
    """

    phrase: str = ""
    exemplars: tuple[Xyxy, ...] = ()
    negatives: tuple[Xyxy, ...] = ()


@dataclass(frozen=True)
class ConceptAsk:
    """Concepts to be found on one picture; all share its embedding, which clicks use too.

    Attributes:
        image: content hash of the picture.
        concepts: at least one, :data:`MOST_CONCEPTS` at most.
        segmenter: name of one that understands concepts: ``sam3``, or a tuned run's id; None for the engine's own.
        threshold: least score, 0..1.
        limit: most instances of the whole answer, best first.
        masks: send masks back, not boxes alone.
        lane: ``click`` where somebody waits; ``batch`` for a job.
        seconds: from now until the answer; None for the longest that Label Studio waits (``click``), no limit in a job.
        task: whose question this is; a newer one of the task in the click lane supersedes it. Empty supersedes nothing.
    """

    image: str
    concepts: tuple[Concept, ...]
    segmenter: str | None = None
    threshold: float = THRESHOLD
    limit: int = LIMIT
    masks: bool = True
    lane: Literal["click", "batch"] = "click"
    seconds: float | None = None
    task: str = ""


@dataclass(frozen=True, eq=False)
class Instance:
    """One object that was found.

    Attributes:
        concept: index of the concept in the question.
        score: 0..1: how sure the model is, that the concept is there at all included.
        xyxy: its box as the detector gives it, inside of the picture, at least a pixel wide and high.
        mask: the detector's own; None where none was asked for, or where it has no pixel.
    """

    concept: int
    score: float
    xyxy: Xyxy
    mask: BoxMask | None = None


@dataclass(frozen=True, eq=False)
class ConceptsFound:
    """Instances of all concepts, best first.

    Attributes:
        found: over the threshold, as many as the limit allows.
        more: how many over the threshold were left out for the limit.
        size_wh: the picture's width and height in pixels.
        segmenter: ``Segmenter.version`` that answered.
        was_warm: whether the picture's embedding was ready.
        seconds: from the question to the answer.
    """

    found: tuple[Instance, ...]
    more: int
    size_wh: tuple[int, int]
    segmenter: str
    was_warm: bool
    seconds: float

    def dump(self) -> tuple[dict[str, object], bytes]:
        """JSON, and the bits of all masks one after the other."""
        rows = [
            [one.concept, one.score, *one.xyxy, one.mask and [*one.mask.xywh, one.mask.quality]] for one in self.found
        ]
        about: dict[str, object] = {
            "found": rows,
            "more": self.more,
            "size_wh": self.size_wh,
            "segmenter": self.segmenter,
            "was_warm": self.was_warm,
            "seconds": self.seconds,
        }
        return about, b"".join(one.mask.bits for one in self.found if one.mask is not None)

    @classmethod
    def load(cls, about: Mapping[str, Any], bits: bytes) -> ConceptsFound:
        """What :meth:`dump` gave."""
        first, found = 0, []
        for concept, score, x0, y0, x1, y1, packed in about["found"]:
            mask = None
            if packed:
                left, top, width, height, quality = packed
                last = first + (int(width) * int(height) + 7) // 8
                mask = BoxMask((int(left), int(top), int(width), int(height)), float(quality), bits[first:last])
                first = last
            box = (float(x0), float(y0), float(x1), float(y1))
            found.append(Instance(int(concept), float(score), box, mask))
        width, height = about["size_wh"]
        return cls(
            tuple(found),
            int(about["more"]),
            (int(width), int(height)),
            str(about["segmenter"]),
            bool(about["was_warm"]),
            float(about["seconds"]),
        )
