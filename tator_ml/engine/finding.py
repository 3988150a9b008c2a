"""Phrases and exemplars on a picture → every instance of them; clicks go first between two concepts."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from tator_ml.engine.concepts import MOST_CONCEPTS, Concept, ConceptAsk, ConceptsFound, Instance
from tator_ml.engine.frugal import Frugal, FrugalFinder
from tator_ml.engine.lanes import Lanes
from tator_ml.engine.masks import BoxMask
from tator_ml.engine.messages import EngineError
from tator_ml.engine.questions import Question, Questions
from tator_ml.engine.segmenters.base import Candidates, Embedding
from tator_ml.engine.supply import Prepared, Supply
from tator_ml.engine.warm import WarmImage
from tator_sdk.geometry import Xyxy, clip_xyxy

LEAST_SIDE = 1.0
"""Of a box, in pixels."""
MASK_THRESHOLD = 0.5
"""Probability over which a pixel belongs to the mask."""
NOWHERE = "A drawn box has no place on the picture; draw it again."
TOO_SLOW = "Tator did not find everything in time; ask for fewer phrases at once, or take a faster device."


@dataclass(frozen=True)
class _Kept:
    """An instance whose mask is still (h, w) logits in the decoder's resolution."""

    concept: int
    score: float
    xyxy: Xyxy
    mask: Tensor | None


@dataclass
class _Best:
    """The best instances so far; the others are only counted."""

    limit: int
    kept: list[_Kept] = field(default_factory=list)
    over: int = 0

    def add(self, found: Sequence[_Kept]) -> None:
        """Take in one concept's."""
        self.over += len(found)
        self.kept = sorted([*self.kept, *found], key=lambda one: -one.score)[: self.limit]


class Finder:
    """Asks segmenters that understand concepts; any thread may."""

    def __init__(
        self, lanes: Lanes, questions: Questions, supply: Supply, segmenter: Callable[[str | None], Frugal]
    ) -> None:
        """Prepare.

        Args:
            lanes: to the device.
            questions: those that are open.
            supply: has the pictures and their embeddings.
            segmenter: by name, loaded now if need be.
        """
        self._lanes = lanes
        self._questions = questions
        self._supply = supply
        self._segmenter = segmenter

    def find(self, ask: ConceptAsk, abandoned: Callable[[], bool] = lambda: False) -> ConceptsFound:
        """Ask; the picture is made ready, and masks are enlarged, on the caller's thread.

        Args:
            ask: the question.
            abandoned: looked at now and then; True ends it.

        Raises:
            UnknownImage, ImageError, Busy, OutOfMemory: as :meth:`Engine.answer`.
            Superseded: a newer question of the task is answered in this one's place.
            Stopped: it was taken back, or abandoned.
            EngineError: the question or the segmenter is none for this, or there was no answer in time.
            TatorError: the segmenter cannot be loaded.
        """
        _check(ask)
        with self._questions.open(ask, ask.image, ask.segmenter or "", "phrases and exemplars") as question:
            segmenter = self._segmenter(ask.segmenter)
            finder = segmenter.concepts()
            if finder is None:
                raise EngineError(
                    f"{segmenter.name} does not understand phrases; choose sam3 for them with "
                    "`tator segmenter --project N sam3`, or name it as SAM_VARIANT."
                )
            prepared = self._supply.prepare(segmenter.version, ask.image, pixels=False)
            self._lanes.ready(question.ticket, partial(self._best, ask, question, segmenter, finder, prepared))
            del prepared  # the work holds it, as long as it waits
            best, size_wh, came_from = self._questions.answer(question, abandoned, TOO_SLOW)
            return ConceptsFound(
                found=tuple(_instance(finder, one, size_wh) for one in best.kept),
                more=best.over - len(best.kept),
                size_wh=size_wh,
                segmenter=segmenter.version,
                was_warm=came_from != "encoded",
                seconds=time.monotonic() - question.begun,
            )

    def _best(
        self,
        ask: ConceptAsk,
        question: Question,
        segmenter: Frugal,
        finder: FrugalFinder,
        prepared: Prepared | WarmImage,
    ) -> tuple[_Best, tuple[int, int], str]:
        """On the device's thread: the best instances, the picture's size, and where its embedding came from."""
        warm, came_from = self._supply.warmed(segmenter, prepared)
        # from here on nothing is encoded: clicks on the same picture may go first
        question.ticket.about = replace(question.ticket.about, image="")
        size_wh = warm.embedding.size_wh
        seen: Embedding | None = None
        best = _Best(ask.limit)
        for first in range(0, len(ask.concepts), finder.together):
            self._lanes.pause(words=True)
            if question.over():
                raise EngineError(TOO_SLOW)
            seen = seen or finder.look(warm.embedding, ask.masks)
            concepts = [_placed(one, size_wh) for one in ask.concepts[first : first + finder.together]]
            for number, candidates in enumerate(finder.find(seen, concepts, ask.masks), first):
                best.add(list(_over(candidates, number, ask.threshold, ask.limit, size_wh)))
        return best, size_wh, came_from


def _check(ask: ConceptAsk) -> None:
    """Raises EngineError where a question makes no sense."""
    if not 1 <= len(ask.concepts) <= MOST_CONCEPTS:
        raise EngineError(f"Ask for at least one phrase or exemplar, and for {MOST_CONCEPTS} at most.")
    if not (0 <= ask.threshold <= 1 and ask.limit >= 1):
        raise EngineError("The threshold is to be 0 to 1, and the limit at least 1.")
    for concept in ask.concepts:
        if not (concept.phrase.strip() or concept.exemplars):
            raise EngineError("Type a phrase, or draw a box around an object that is meant.")
        if not np.isfinite(np.array([*concept.exemplars, *concept.negatives], np.float64)).all():
            raise EngineError(NOWHERE)


def _placed(concept: Concept, size_wh: tuple[int, int]) -> Concept:
    """The concept with the parts of its boxes that are on the picture.

    Raises:
        EngineError: nothing is left of it.
    """
    exemplars, negatives = (
        tuple(part for box in boxes if _is_box(part := clip_xyxy(box, size_wh)))
        for boxes in (concept.exemplars, concept.negatives)
    )
    if not concept.phrase.strip() and not exemplars:
        raise EngineError(NOWHERE)
    return Concept(concept.phrase.strip(), exemplars, negatives)


def _is_box(xyxy: Xyxy) -> bool:
    return min(xyxy[2] - xyxy[0], xyxy[3] - xyxy[1]) >= LEAST_SIDE  # False for NaN


def _over(
    candidates: Candidates, concept: int, threshold: float, limit: int, size_wh: tuple[int, int]
) -> Iterator[_Kept]:
    """Candidates over the threshold, inside of the picture, best first; masks of as many as the limit allows."""
    scores = candidates.scores.float().cpu().nan_to_num(0.0)
    boxes = candidates.xyxy.float().cpu()
    left = limit
    for row in torch.argsort(scores, descending=True, stable=True).tolist():
        score = float(scores[row])
        if score <= threshold:
            return
        x0, y0, x1, y1 = boxes[row].tolist()
        xyxy = clip_xyxy((x0, y0, x1, y1), size_wh)
        if not _is_box(xyxy):
            continue
        wanted = candidates.masks is not None and left > 0
        left -= 1
        # on the CPU, where masks are enlarged: the batch that this is a row of shall not live on
        mask = candidates.masks[row].float().cpu().clone() if wanted and candidates.masks is not None else None
        yield _Kept(concept, score, xyxy, mask)


def _instance(finder: FrugalFinder, one: _Kept, size_wh: tuple[int, int]) -> Instance:
    mask = None
    if one.mask is not None:
        whole = finder.full_size(one.mask[None], size_wh)[0] > MASK_THRESHOLD
        mask = BoxMask.pack(whole.numpy(), one.score)
    return Instance(one.concept, one.score, one.xyxy, mask)
