"""Every picture of some tasks asked about in words; what came of it is a line in the job's journal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from tator_ml.engine.concepts import ConceptAsk, ConceptsFound
from tator_ml.engine.detections import DetectAsk, Detected
from tator_ml.images.decode import ImageError
from tator_ml.quality.comparison import Comparison
from tator_ml.words.finding import Manner, Worded
from tator_ml.words.qwen import AnswersWords
from tator_ml.words.sam3 import FindsConcepts
from tator_sdk.annotations import addresses_of
from tator_sdk.regions import Region
from tator_sdk.requests import Prelabel
from training.job import Job
from training.sweep import Fetches, Line, Patient, Stopped, Sweep

FOUND_FILE = "found.jsonl"


class FindsWords(AnswersWords, FindsConcepts, Protocol):
    """An engine that is asked in words, by whichever model."""


class PatientWords(Patient):
    """As :class:`Patient`, for questions in words and by phrases as well."""

    def __init__(self, engine: FindsWords, patience_seconds: float, sweep: Sweep) -> None:
        super().__init__(engine, patience_seconds, sweep.stopped)
        self._words = engine

    def detect(self, ask: DetectAsk) -> Detected:
        """Ask a vision-language model.

        Raises:
            EngineError: it is away for too long, or cannot answer.
        """
        return self.patiently(lambda: self._words.detect(ask))

    def find_concepts(self, ask: ConceptAsk) -> ConceptsFound:
        """Ask SAM 3.

        Raises:
            EngineError: it is away for too long, or cannot answer.
        """
        return self.patiently(lambda: self._words.find_concepts(ask))


@dataclass(frozen=True)
class How:
    """How pictures are asked about.

    Attributes:
        request: which, and with which words.
        manners: one for each image tag that can hold an answer.
        version: of the model, as predictions carry it.
        comparison: whose drawn tasks are left out; None for none.
    """

    request: Prelabel
    manners: tuple[Manner, ...]
    version: str
    comparison: Comparison | None = None


class Looking:
    """Asks about tasks, a bounded number at once; may be begun again, and goes on with those that are left."""

    def __init__(self, how: How, job: Job, engine: FindsWords, fetcher: Fetches, patience_seconds: float) -> None:
        self._how = how
        self._sweep = Sweep(job, job.folder / FOUND_FILE, how.request.in_flight)
        self._engine = PatientWords(engine, patience_seconds, self._sweep)
        self._fetcher = fetcher

    def look(self, select: Callable[[], tuple[int, Iterator[Any]]]) -> None:
        """Ask about all tasks that an earlier attempt of the job has not asked about.

        Args:
            select: asks for the tasks, as the SDK gives them, and how many there are.

        Raises:
            TatorError: nobody can answer.
            JobCancelled, JobLost: the job is to stop; what is written stays.
        """
        self._sweep.over(
            select, self._task, lambda _: 1, lambda count, seconds: f"asking, {60 * count / seconds:.1f} a minute"
        )

    def _task(self, task: Any) -> Line:
        if self._sweep.stopped.is_set():
            raise Stopped
        line: Line = {
            "task": int(task.id), "unreadable": 0, "notes": [], "counts": {}, "unmatched": {}, 
            "tokens": 0, "seconds": 0.0, "cut": 0, "garbled": 0, "more": 0, "offer": None,
        }  # fmt: skip
        if self._how.comparison is not None and self._how.comparison.draws(int(task.id)):
            line["notes"].append("Tasks that are drawn for the comparison without assistance are left out.")
            return line
        addresses = addresses_of(self._how.manners[0].interface, task.data or {})
        regions: list[Region] = []
        counts: Counter[str] = Counter()
        unmatched: Counter[str] = Counter()
        for manner in self._how.manners:
            try:
                worded = self._picture(manner, addresses.get((manner.image_name, 0)), int(task.id))
            except ImageError as error:
                line["unreadable"] += 1
                line["notes"].append(f"Task {task.id}: {error}")
                continue
            regions += worded.regions
            counts += worded.counts
            unmatched += worded.unmatched
            line["tokens"] += worded.tokens
            line["seconds"] = round(line["seconds"] + worded.seconds, 3)
            line["cut"] += worded.cut or bool(worded.late)
            line["garbled"] += worded.garbled
            line["more"] += worded.more
            if worded.without_class:
                line["notes"].append(f"Without classes of the head: {worded.without_class}")
        line |= {"counts": dict(counts), "unmatched": dict(unmatched)}
        if regions:
            scores = [one["score"] for one in regions if "score" in one]
            line["offer"] = {
                "task": int(task.id),
                "result": regions,
                "score": min(scores, default=0.0),
                "model_version": self._how.version,
            }
        return line

    def _picture(self, manner: Manner, address: str | None, task: int) -> Worded:
        if address is None:
            raise ImageError(f"it has no picture for '{manner.image_name}'")
        ref = self._fetcher.fetch(address, task)
        finder = manner.finder(self._engine)
        return finder.find(ref, self._how.request.prompt, self._how.request.seconds, lane="batch", strict=False)


def offer_of(line: Any) -> dict[str, Any] | None:
    """The prediction in a journal's line; None where it has none."""
    return line["offer"]  # type: ignore[no-any-return]
