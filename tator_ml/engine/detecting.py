"""A question in words about a picture → objects in its pixels; clicks go first while the answer is written."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from tator_ml.engine.detections import DetectAsk, Detected, Detection
from tator_ml.engine.lanes import Lanes
from tator_ml.engine.memory import Ladder
from tator_ml.engine.messages import EngineError
from tator_ml.engine.questions import Question, Questions
from tator_ml.engine.supply import Supply
from tator_ml.engine.vlms import Vlms
from tator_ml.vlm.parsing import Parsed, parse
from tator_sdk.geometry import clip_xyxy
from tator_sdk.settings import Settings

if TYPE_CHECKING:
    from tator_ml.engine.warm import Pixels
    from tator_ml.vlm.model import Generated, Vlm
    from tator_ml.vlm.model import Question as VlmQuestion


SHRINK = 2
"""What the sides of a picture are divided by where memory is short."""
LEAST_SIDE = 1.0
"""Of a box, in pixels."""
SMALLER = "ask a smaller model in words"
TOO_SLOW = "The model did not write a word in time; ask again, or take a smaller model or a faster device."


class Detector:
    """Asks vision-language models; any thread may."""

    def __init__(
        self, settings: Settings, lanes: Lanes, questions: Questions, supply: Supply, vlms: Vlms, ladder: Ladder
    ) -> None:
        """Prepare.

        Args:
            settings: limits of length.
            lanes: to the device.
            questions: those that are open.
            supply: has the pictures.
            vlms: the models.
            ladder: for want of memory.
        """
        self._settings = settings
        self._lanes = lanes
        self._supply = supply
        self._vlms = vlms
        self._ladder = ladder
        self._questions = questions

    def detect(self, ask: DetectAsk, abandoned: Callable[[], bool] = lambda: False) -> Detected:
        """Ask; picture and words are made ready, and the answer is read, on the caller's thread.

        Args:
            ask: the question.
            abandoned: looked at now and then; True ends it.

        Raises:
            UnknownImage, ImageError, Busy, OutOfMemory: as :meth:`Engine.answer`.
            Superseded: a newer question of the task is answered in this one's place.
            Stopped: it was taken back, or abandoned.
            EngineError: there was no answer in time.
            TatorError: the model cannot be loaded, or does not take such a picture.
        """
        name = ask.model or self._settings.qwen_model_name
        with self._questions.open(ask, what="a question in words") as asked:
            picture = self._supply.pixels(ask.image)
            with self._vlms.using(name, asked.until, partial(self._ladder.run, "", advice=SMALLER)) as vlm:
                question = vlm.prepare(picture, ask.system, ask.user)
                self._lanes.ready(asked.ticket, partial(self._generated, name, vlm, picture, question, ask, asked))
                generated: Generated = self._questions.answer(asked, abandoned, TOO_SLOW)
                size_wh = (picture.shape[1], picture.shape[0])
                return _read(ask, vlm, generated, size_wh, time.monotonic() - asked.begun)

    def _generated(
        self, name: str, vlm: Vlm, picture: Pixels, question: VlmQuestion, ask: DetectAsk, asked: Question
    ) -> Generated:
        """On the device's thread."""

        def answer(question: VlmQuestion) -> Generated:
            with self._vlms.writing(name) as progress:
                return vlm.answer(
                    question,
                    ask.max_new_tokens or self._settings.qwen_max_new_tokens,
                    partial(self._lanes.pause, words=True),
                    asked.stop.is_set,
                    None if asked.until == math.inf else max(asked.until - time.monotonic(), 0.0),
                    progress,
                )

        return self._ladder.run(
            "",
            lambda: answer(question),
            (
                "smaller picture for words",
                lambda: answer(vlm.prepare(picture, ask.system, ask.user, max(question.input_wh) // SHRINK)),
            ),
            advice=SMALLER,
        )


def _read(ask: DetectAsk, vlm: Vlm, generated: Generated, size_wh: tuple[int, int], seconds: float) -> Detected:
    """What was written, read and brought to the picture."""
    parsed = parse(generated.text)
    if generated.ended == "time" and not generated.tokens:
        raise EngineError(TOO_SLOW)
    found, problems = placed(parsed, vlm, generated.input_wh, size_wh)
    return Detected(
        found=found[: ask.max_results],
        text=generated.text,
        ended=generated.ended,
        complete=parsed.complete,
        problems=problems,
        tokens=generated.tokens,
        seconds=seconds,
        model_version=vlm.version,
        size_wh=size_wh,
    )


def placed(
    parsed: Parsed, vlm: Vlm, input_wh: tuple[int, int], size_wh: tuple[int, int]
) -> tuple[tuple[Detection, ...], tuple[str, ...]]:
    """Detections in the model's coordinates → in pixels and inside of the picture, each once; and all problems.

    Boxes are clamped; one that then has no pixel of width or height is left out, and so is a point outside.
    """
    width, height = size_wh
    to_picture = vlm.coordinates.to_picture
    found: dict[Detection, None] = {}
    outside = 0
    for one in parsed.detections:
        xyxy = one.box and clip_xyxy(to_picture(one.box, size_wh, input_wh), size_wh)
        if xyxy and min(xyxy[2] - xyxy[0], xyxy[3] - xyxy[1]) < LEAST_SIDE:
            xyxy = None
        point = one.point and to_picture(one.point, size_wh, input_wh)
        if point and not (0 <= point[0] <= width and 0 <= point[1] <= height):
            point = None
        if xyxy or point:
            found[Detection(one.label, xyxy, point)] = None
        else:
            outside += 1
    problems = parsed.problems
    if outside:
        objects = "1 object lies" if outside == 1 else f"{outside} objects lie"
        problems += (f"{objects} outside of the picture or without area.",)
    return tuple(found), problems
