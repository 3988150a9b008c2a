"""Commands in the editor's prompt field: words that begin with ``/``. Each is one line in :data:`COMMANDS`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any

from label_config.interface import Control, Interface
from tator_ml.images.decode import ImageError
from tator_ml.images.fetch import ImageRef
from tator_ml.projects import ProjectChoices
from tator_ml.prompts.assists import AssistError
from tator_ml.prompts.notes import noted
from tator_ml.prompts.standing import StandingBox, class_named, rewritten, standing_boxes, with_labels
from tator_ml.prompts.tweaking import Tweaked, Tweaker, kept_because
from tator_ml.services import Services
from tator_ml.words.found_objects import wants_classes
from tator_ml.words.in_time import steps_in_time
from tator_sdk.regions import Region

Json = Mapping[str, Any]
SIGN = "/"
QUOTES = ('"', "'", "“”", "„“", "«»")


@dataclass(frozen=True)
class Typed:
    """A command that somebody typed, with what it may need.

    Attributes:
        argument: what stands behind its name.
        services: of the web process.
        project: its number.
        choices: of the project.
        interface: of the project.
        control: the prompt field's tag.
        task: the request's task, with drafts, annotations and predictions.
        prompt_id: id of the prompt field's own region.
        image_name: name of the image tag.
        fetch: brings the task's picture into the store.
    """

    argument: str
    services: Services
    project: int | None
    choices: ProjectChoices
    interface: Interface
    control: Control
    task: Json
    prompt_id: str
    image_name: str
    fetch: Callable[[], ImageRef]


@dataclass(frozen=True)
class Done:
    """What a command came to.

    Attributes:
        regions: the answer; an id that stands on the canvas replaces that region in place.
        said: for the strip.
        model_version: what answered.
        was_warm: whether the picture was ready.
        assist: that it counts as, and that its answer is recorded under.
        stood: results that it was about, as they stood before.
    """

    regions: list[Region]
    said: str
    model_version: str = ""
    was_warm: bool = True
    assist: str = "text"
    stood: Sequence[object] = ()


Run = Callable[[Typed], Done]


def last_text(item: Json) -> str:
    """The newest words of a prompt field, which sends all that were ever entered."""
    value = item.get("value")
    texts = value.get("text") if isinstance(value, Mapping) else None
    if isinstance(texts, str):
        return texts.strip()
    return str(texts[-1]).strip() if isinstance(texts, list) and texts else ""


def command_of(text: str) -> tuple[Run, str]:
    """The command that a text beginning with ``/`` means, and its argument.

    Raises:
        AssistError: there is no such command; the sentence says what there is.
    """
    name, _, argument = text.removeprefix(SIGN).partition(" ")
    if name.lower() not in COMMANDS:
        raise AssistError(f"There is no command {SIGN}{name}; there is {', '.join(SIGN + one for one in COMMANDS)}.")
    return COMMANDS[name.lower()], argument.strip()


def tweak(typed: Typed) -> Done:
    """Tighten the boxes that stand on the picture, all or those of a class, each under its own id.

    Boxes that the guard keeps are left out of the answer, so they stay as they are. Where the time does not suffice,
    what is done is answered; typed again, the command begins with the others.

    Raises:
        AssistError: there is nothing to tighten.
        UnknownClass: the configuration has no such class.
        TatorError: with a sentence.
    """
    result = on_screen(typed.task, typed.prompt_id)
    standing = standing_boxes(result, typed.interface)
    boxes = [box for box in standing.boxes if (box.image_name, box.item_index) == (typed.image_name, 0)]
    word = "box"
    if (wanted := unquoted(typed.argument)) is not None:
        stood = (label for box in boxes for label in box.labels)
        word = class_named(wanted, list(dict.fromkeys([*typed.interface.labels, *stood])))
        boxes = list(with_labels(boxes, [word]))
    if not boxes:
        raise AssistError(
            f"No {word} stands upright on this picture to be tightened (a new one is known five seconds later)."
        )
    ref = typed.fetch()
    boxes = _new_ones_first(typed, boxes)
    begun = monotonic()
    tweaker = _tweaker(typed)
    try:
        done = _in_time(typed, tweaker, ref, boxes)
    except ImageError:
        typed.services.images.forget(ref)
        raise
    changed = {one.box.region: one for one in done if one.moved or one.label}
    answer = rewritten([item for item in result if _id(item) in changed], {n: o.change for n, o in changed.items()})
    regions = [_answered(item, changed[_id(item)]) for item in answer]
    said = _said(done, len(boxes), monotonic() - begun)
    if tweaker.without_class:
        said += f"; without classes: {tweaker.without_class}"
    return Done(regions, said, tweaker.model_version, tweaker.was_warm, "tweak", result)


def forget(typed: Typed) -> Done:
    """Ask kept words no more on the next pictures.

    Raises:
        AssistError: it is no project's request.
    """
    if typed.project is None:
        raise AssistError("This request belongs to no project, so there is nothing to forget.")
    kept = typed.choices.words
    typed.services.choose(typed.project, words=None)
    return Done([], f"'{kept.text or 'all'}' is asked no more" if kept else "no words were kept")


COMMANDS: Mapping[str, Run] = {"tweak": tweak, "forget": forget}


def on_screen(task: Json, prompt_id: str = "") -> list[Any]:
    """The results that the annotator sees: a request does not say which annotation is open.

    A prompt field keeps its region from the first words on, so a draft or annotation that has it is the one. Else it
    is the only annotation that has boxes of its own, as it stands in its draft where there is one; where nobody has
    begun one, it is the newest prediction, whose regions the editor takes over with their ids.

    Raises:
        AssistError: several may be meant.
    """
    drafts, annotations, predictions = (
        [one for one in task.get(source) or [] if isinstance(one, Mapping)]
        for source in ("drafts", "annotations", "predictions")
    )
    drafted = {one.get("annotation") for one in drafts} - {None}
    edited = [*drafts, *(one for one in annotations if one.get("id") not in drafted)]
    edited.sort(key=lambda one: str(one.get("updated_at") or one.get("created_at") or ""), reverse=True)
    results = [_results(one) for one in edited]
    for result in results:
        if any(_id(item) == prompt_id for item in result):
            return result
    begun = [result for result in results if result]
    newest = {_id(item) for item in begun[0]} if begun else set()
    if any(not {_id(item) for item in other} <= newest for other in begun[1:]):
        raise AssistError(
            "Several annotations stand on this task, and Label Studio does not tell which one is open: wait five "
            "seconds, until the draft is saved, and type it again."
        )
    return next(iter([*begun, *(_results(one) for one in predictions[::-1])]), [])


def _results(holder: Json) -> list[Any]:
    return [item for item in holder.get("result") or [] if isinstance(item, Mapping)]


def unquoted(argument: str) -> str | None:
    """The class that an argument names; None for ``all`` and for nothing."""
    if argument.lower() in ("", "all"):
        return None
    first, last = argument[0], argument[-1]
    quoted = len(argument) > 2 and any((first, last) == (pair[0], pair[-1]) for pair in QUOTES)
    return argument[1:-1].strip() if quoted else argument


def _tweaker(typed: Typed) -> Tweaker:
    """One that does what the prompt field's ``model_assist`` says, else the project's switches, else both."""
    classify = wants_classes(typed.control, typed.choices)
    return Tweaker(
        typed.services.engine, typed.interface, typed.choices.clicks_by, typed.choices.head, classify,
    )  # fmt: skip


def _new_ones_first(typed: Typed, boxes: list[StandingBox]) -> list[StandingBox]:
    """Those that were never tightened come first, so that a command that ran out of time goes on when typed again."""
    number = typed.task.get("id")
    if typed.project is None or not isinstance(number, int):
        return boxes
    known = typed.services.suggestions.known_ids(typed.project, number)
    return sorted(boxes, key=lambda box: box.region in known)


def _in_time(typed: Typed, tweaker: Tweaker, ref: ImageRef, boxes: list[StandingBox]) -> list[Tweaked]:
    """What can be done before Label Studio gives up: a step behind many clicks may take too long."""
    begun, done = monotonic(), list[Tweaked]()
    seconds = typed.services.settings.answer_timeout_seconds

    def said() -> str:
        return _progress(len(done), len(boxes), monotonic() - begun)

    for part in steps_in_time(typed.services, typed.project, said, tweaker.tweak(ref, boxes), seconds):
        done += part
    if not done:
        raise AssistError(f"No box was done within {seconds:g} s: Tator is busy; try again in a moment.")
    return done


def _progress(done: int, total: int, seconds: float) -> str:
    left = f", {seconds / done * (total - done):.0f} s left" if done and seconds > 2 else ""
    return f"tightening, {done} of {total} boxes{left}…"


def _answered(item: Any, one: Tweaked) -> Region:
    """A result as the editor takes it: with what it rests on in the region list and the Info panel."""
    info = []
    if one.verdict:
        info.append(" · ".join(f"{name} {share:.2f}" for name, share in one.verdict.top))
    if one.moved:
        info.append(f"tightened: IoU {one.iou:.2f} with the box before, mask quality {one.quality or 0:.2f}")
    elif one.reason:
        info.append(f"box kept: {one.reason}")
    score = one.verdict.probability if one.verdict else one.quality
    made = {**item, "meta": noted(item, info)}
    return {**made, "score": round(float(score), 4)} if score is not None else made


def _said(done: list[Tweaked], total: int, seconds: float) -> str:
    moved = sum(one.moved for one in done)
    kept = [one for one in done if one.reason]
    said = [f"{moved} of {total} boxes tightened in {seconds:.1f} s"]
    if kept:
        why = sorted({name for one in kept for name in kept_because(one.reason or "")})
        said.append(f"{len(kept)} kept ({', '.join(why)})")
    if tight := len(done) - moved - len(kept):
        said.append(f"{tight} tight already")
    if named := sum(one.label is not None for one in done):
        said.append(f"{named} with another class")
    if len(done) < total:
        said.append(f"time ran out before {total - len(done)}: accept these, then type it again")
    return ", ".join(said)


def _id(item: Any) -> str:
    return str(item.get("id")) if isinstance(item, Mapping) else ""
