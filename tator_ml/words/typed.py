"""Words in the prompt field → regions: asked in the time that Label Studio has, told on the strip, kept if wished."""

from __future__ import annotations

from collections.abc import Collection
from time import monotonic

from tator_ml.images.decode import ImageError
from tator_ml.projects import KeptWords
from tator_ml.prompts.assists import AssistError
from tator_ml.words.commands import Done, Typed, on_screen
from tator_ml.words.finding import Worded
from tator_ml.words.found_objects import Placed, placed_regions
from tator_ml.words.in_time import in_time
from tator_ml.words.manner import manner_of

ALL = ("all", "*")
"""Words for all classes: the editor sends no empty text."""

UNCLEAR = "several annotations stand on this task, so it may repeat what yours has"
ENGINE_SHARE = 0.95  # of the time; the rest is for fetching the picture and for writing the answer


def find(typed: Typed) -> Done:
    """Find what the words name, in the manner of the field's options.

    Objects that stand on the picture already are left out.

    Raises:
        TatorError: with a sentence.
    """
    services, begun = typed.services, monotonic()
    manner = manner_of(services, typed.project, typed.choices, typed.interface, typed.control, typed.image_name)
    words = all_or(typed.argument, manner.interface.labels)
    standing, unclear = standing_on(typed)
    ref = typed.fetch()
    finder = manner.finder(services.engine)
    seconds = services.settings.answer_timeout_seconds - (monotonic() - begun)

    def ask() -> Worded:
        about = f"{typed.project}/{typed.task.get('id')}/words"
        return finder.find(ref, words, seconds * ENGINE_SHARE, standing, "click", about)

    try:
        worded = in_time(services, typed.project, lambda: finder.doing, ask, seconds)
    except ImageError:
        services.images.forget(ref)
        raise
    said = said_of(worded, words, monotonic() - begun)
    if unclear:
        said += f"; {UNCLEAR}"
    if manner.keep and typed.project is not None:
        services.choose(typed.project, words=KeptWords(words, typed.control.name))
        said += "; kept for the next pictures (/forget ends that)"
    return Done(worded.regions, said, worded.model_version, worded.was_warm)


def all_or(words: str, labels: tuple[str, ...]) -> str:
    """The words, or none where all classes are meant."""
    meant = words.strip()
    return "" if meant.lower() in ALL and meant not in labels else meant


def said_of(worded: Worded, words: str, seconds: float) -> str:
    """An answer for the strip."""
    counted = ", ".join(f"{count} {label}" for label, count in worded.counts.items())
    what = f"'{words[:60]}'" if words else "any class"
    found = counted or f"nothing {'new' if worded.standing else 'found'} for {what}"
    return "; ".join([f"{found} in {seconds:.1f} s", *worded.left_out])


def standing_on(typed: Typed, but: Collection[str] = ()) -> tuple[list[Placed], bool]:
    """What stands on the picture, and whether it is unclear which annotation is open.

    Args:
        typed: the request.
        but: ids of regions that do not count.
    """
    try:
        result = on_screen(typed.task, typed.prompt_id)
    except AssistError:
        return [], True
    return placed_regions([item for item in result if str(item.get("id")) not in but], typed.image_name), False
