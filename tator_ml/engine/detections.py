"""What web, jobs and engine say to each other about objects asked for in words; as :mod:`messages`, free of torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tator_sdk.geometry import Xyxy

MOST_RESULTS = 50
"""Objects in an answer; a model asked for eight may well name fifty."""

Ended = Literal["end", "length", "time", "cancelled"]
"""Why a model stopped writing: of itself, at its greatest length, at the time limit, or because nobody waits."""


@dataclass(frozen=True)
class DetectAsk:
    """A question in words about one picture.

    Attributes:
        image: content hash of the picture.
        system: the system message; empty for none.
        user: the text of the user message (:func:`tator_ml.vlm.prompts.compose`).
        model: a run's id, or a model by hub id or path; None for the installation's.
        max_new_tokens: the longest answer; None for the setting's.
        max_results: objects that are sent back at most, the first ones of the answer.
        seconds: from now until the answer; what was written until then is answered. None for the longest that
            Label Studio waits where somebody does (``click``), for no limit in a job.
        lane: ``click`` where somebody waits: behind clicks and preloads, before all jobs; ``batch`` for a job.
        task: whose question this is, in the words of whoever asks (project and task); a newer one of the task in the
            ``click`` lane supersedes it. Empty supersedes nothing.
    """

    image: str
    system: str
    user: str
    model: str | None = None
    max_new_tokens: int | None = None
    max_results: int = MOST_RESULTS
    seconds: float | None = None
    lane: Literal["click", "batch"] = "click"
    task: str = ""


@dataclass(frozen=True)
class Detection:
    """One object, in pixels of the picture and inside of it.

    Attributes:
        label: as the model named it; empty where it did not.
        xyxy: its box, at least a pixel wide and high; or None.
        point: x and y; or None.
    """

    label: str
    xyxy: Xyxy | None = None
    point: tuple[float, float] | None = None


@dataclass(frozen=True)
class Detected:
    """An answer in words, read.

    Attributes:
        found: the whole objects of the answer, each place of a label once.
        text: the answer as the model wrote it.
        ended: why it ended.
        complete: whether it was valid JSON to its end.
        problems: what was left out and why, in sentences.
        tokens: that were written.
        seconds: from the question to the answer, waiting and loading included.
        model_version: of the vision-language model.
        size_wh: the picture's width and height in pixels.
    """

    found: tuple[Detection, ...]
    text: str
    ended: Ended
    complete: bool
    problems: tuple[str, ...]
    tokens: int
    seconds: float
    model_version: str
    size_wh: tuple[int, int]


@dataclass(frozen=True)
class VlmStatus:
    """One vision-language model that was asked for since the engine's start.

    Attributes:
        name: as it was asked for; a run's id, a hub id or a path.
        version: with digits of its weights; empty until it was loaded once.
        loaded: whether it is in memory now.
        nbytes: of its weights, in memory or when it was there last.
        idle_seconds: since it was last asked for.
        writing: tokens of the answer that is being written now; None where there is none.
    """

    name: str
    version: str
    loaded: bool
    nbytes: int
    idle_seconds: float
    writing: int | None = None
