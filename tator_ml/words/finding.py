"""What words come to on one picture, and who finds it: what prompt field, kept words and jobs see of any model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, Protocol, TypeVar

from label_config.interface import Control, Interface
from tator_ml.images.fetch import ImageRef
from tator_ml.words.found_objects import Placed
from tator_sdk.regions import Region

Found = TypeVar("Found")


@dataclass
class Worded:
    """What came of words on one picture.

    Attributes:
        model_version: what answered.
        regions: the answer.
        counts: objects in it by label.
        unmatched: names the model gave that are no labels, with how often.
        standing: objects left out because they stood on the picture already, and
        doubled: because another of the answer is the same, and
        more: because the answer has as many as it may.
        late: because the time was up.
        unseen: places at which the segmenter sees nothing.
        placeless: objects with a point where boxes were asked for.
        was_warm: whether the picture was ready.
        without_class: why the class head was not asked, in a sentence.
        problems: what is wrong with the model's answer, in words.
        tokens: that the model wrote.
        seconds: that it took.
        cut: whether its answer ended before its end.
        garbled: whether nothing of it could be read.
    """

    model_version: str
    regions: list[Region] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    unmatched: Counter[str] = field(default_factory=Counter)
    standing: int = 0
    doubled: int = 0
    more: int = 0
    late: int = 0
    unseen: int = 0
    placeless: int = 0
    was_warm: bool = True
    without_class: str | None = None
    problems: tuple[str, ...] = ()
    tokens: int = 0
    seconds: float = 0.0
    cut: bool = False
    garbled: bool = False

    def add(self, placed: Placed, regions: Sequence[Region]) -> None:
        """Take an object into the answer."""
        self.regions += regions
        self.counts[", ".join(placed.labels) or "object"] += 1

    @property
    def left_out(self) -> list[str]:
        """What is not in the answer and why, in words."""
        said = []
        if self.unmatched:
            names = ", ".join(f"'{name[:40]}'" for name, _ in self.unmatched.most_common(3))
            names += ", …" if len(self.unmatched) > 3 else ""
            said.append(f"{self.unmatched.total()} named {names}, which is no label here")
        if self.standing:
            said.append(f"{self.standing} stood already")
        if self.doubled:
            said.append(f"{self.doubled} twice the same")
        if self.unseen:
            said.append(f"{self.unseen} where the segmenter sees nothing")
        if self.placeless:
            said.append(f"{self.placeless} without a box")
        if self.more:
            said.append(f"{self.more} more than model_max_results allows")
        if self.late:
            said.append(f"{self.late} left when the time was up")
        said += self.problems
        if self.without_class:
            said.append(f"without classes: {self.without_class}")
        return said


def fill(
    worded: Worded,
    found: Sequence[Found],
    place: Callable[[Sequence[Found]], Iterable[tuple[Placed, Callable[[], Sequence[Region]]]]],
    *,
    standing: Sequence[Placed],
    most: int,
    step: int,
    until: float,
    tell: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Take objects into an answer, each once, until there are as many as may be or the time is up.

    Args:
        worded: the answer, which is told what is left out as well.
        found: objects, the most important first.
        place: says of some of them where they are, and what writes their regions: none where nothing can be written.
        standing: objects that are on the picture already.
        most: that the answer may have.
        step: how many are placed at once.
        until: when the time is up, by ``time.monotonic``; the first step is taken in any case.
        tell: is told before each step how many are placed then, of how many.
    """
    taken: list[Placed] = []
    for begin in range(0, len(found), step):
        part = found[begin : begin + step]
        if len(taken) >= most:
            worded.more += len(part)
            continue
        if begin and monotonic() > until:
            worded.late += len(part)
            continue
        tell(begin + len(part), len(found))
        for placed, write in place(part):
            if any(placed.is_same(other) for other in standing):
                worded.standing += 1
            elif any(placed.is_same(other) for other in taken):
                worded.doubled += 1
            elif len(taken) >= most:
                worded.more += 1
            elif regions := write():
                taken.append(placed)
                worded.add(placed, regions)
            else:
                worded.unseen += 1


class Finder(Protocol):
    """Asks a model in words about one picture after the other.

    Attributes:
        doing: the current step, for the strip; may be read by another thread.
    """

    doing: str

    def find(
        self,
        ref: ImageRef,
        words: str,
        seconds: float,
        standing: Sequence[Placed] = (),
        lane: str = "click",
        task: str = "",
        strict: bool = True,
    ) -> Worded:
        """Find what the words name.

        Args:
            ref: the picture.
            words: as typed; empty for all classes.
            seconds: the most that it may take.
            standing: objects that are on the picture already.
            lane: ``click`` where somebody waits, ``batch`` for a job.
            task: in whose place a newer question comes; empty for none.
            strict: an answer that cannot be read is an error; else it has no objects.

        Raises:
            TatorError: with a sentence.
        """
        ...


class Manner(Protocol):
    """How words are answered on one image tag of a project."""

    @property
    def interface(self) -> Interface:
        """Of the project."""
        ...

    @property
    def output(self) -> Control:
        """The tag that takes the answer."""
        ...

    @property
    def image_name(self) -> str:
        """Name of the image tag."""
        ...

    @property
    def model_id(self) -> str:
        """Id of the model that is asked."""
        ...

    @property
    def model_name(self) -> str:
        """Its name, short enough for the strip."""
        ...

    @property
    def keep(self) -> bool:
        """Whether words that were typed are asked again on the next pictures."""
        ...

    @property
    def depends(self) -> dict[str, Any]:
        """What the answer depends on beside words and model, as JSON values."""
        ...

    @property
    def verb(self) -> str:
        """Of ``tator prelabel``, which asks in this manner."""
        ...

    def version(self, engine: Any) -> str:
        """What takes part in an answer: model, segmenter, head."""
        ...

    def finder(self, engine: Any) -> Finder:
        """One that asks an engine."""
        ...
