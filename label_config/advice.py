"""What Tator can serve with a configuration, and what to add to it. Shown by ``tator connect`` and ``tator doctor``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from label_config.interface import Control, Gives, ImageTag, Interface, Takes

Level = Literal["serves", "missing", "hint"]
"""``serves``: what works now; ``missing``: without it Tator has no use; ``hint``: what would make it better."""

_ASKED: dict[Takes, str] = {"points": "clicks", "boxes": "boxes", "strokes": "strokes", "text": "words"}
_ANSWERED: dict[Gives, str] = {"box": "boxes", "polygon": "polygons", "mask": "masks", "ellipse": "ellipses"}


@dataclass(frozen=True)
class Advice:
    """One thing to know about a configuration.

    Attributes:
        level: how much it matters.
        message: one sentence for a person.
        snippet: XML to paste, where something is to be added.
    """

    level: Level
    message: str
    snippet: str | None = None


def problems(interface: Interface) -> list[Advice]:
    """What works with a configuration, then what is missing, then what would be better.

    An interface that Tator can serve has at least one ``serves``; ``missing`` comes with a snippet that mends it.
    """
    found: list[Advice] = []
    if not interface.images:
        snippet = _snippet(Element("Image", name=_free("image", interface), value="$image", zoom="true"))
        found.append(Advice("missing", "There is no <Image>, so Tator has nothing to look at.", snippet))
    for image in interface.images:
        found += _serves(interface, image)
        found += _missing(interface, image)
        found += _hints(interface, image)
    found += [Advice("hint", warning) for warning in interface.warnings]
    order = ("serves", "missing", "hint")
    return sorted(dict.fromkeys(found), key=lambda advice: order.index(advice.level))


def _serves(interface: Interface, image: ImageTag) -> Iterator[Advice]:
    prompts = [prompt for prompt in interface.prompts_for(image) if _asks(prompt)]
    allowed = [output for prompt in prompts for output in interface.outputs_for(image, prompt)]
    outputs = [output for output in interface.outputs_for(image) if not prompts or output in allowed]
    if not outputs:
        return
    answers = _list([f"{_ANSWERED[output.gives]} ({output.name})" for output in outputs if output.gives])
    if prompts:
        asks = _list([f"{_asked(prompt)} ({prompt.name})" for prompt in prompts])
        yield Advice("serves", f'On "{image.name}", {asks} are answered with {answers}.')
    else:
        yield Advice("serves", f'On "{image.name}", predictions can be retrieved as {answers}.')


def _missing(interface: Interface, image: ImageTag) -> Iterator[Advice]:
    if not interface.outputs_for(image):
        message = f'On "{image.name}" no tag can hold an answer; add boxes like these, or polygons or a brush.'
        yield Advice("missing", message, _labels_snippet("RectangleLabels", "box", interface, image))
    if any(prompt.takes == "points" and _asks(prompt) for prompt in interface.prompts_for(image)):
        return
    if mute := [f'"{control.name}"' for control in interface.controls if _is_mute_point(control, image)]:
        yield Advice("missing", f'Clicks do not reach Tator: remove smart="false" from {_list(mute)}.')
        return
    message = f'On "{image.name}" no tag takes clicks; put this one before all other tools.'
    yield Advice("missing", message, _labels_snippet("KeyPointLabels", "point", interface, image))


def _hints(interface: Interface, image: ImageTag) -> Iterator[Advice]:
    prompts = interface.prompts_for(image)
    tools = [prompt for prompt in prompts if prompt.takes != "text"]
    points = [prompt for prompt in tools if prompt.takes == "points"]
    kinds = {prompt.takes for prompt in prompts if _asks(prompt) and not prompt.takes_exemplars}
    if points and points[0] is not tools[0]:
        message = f'The smart button starts with "{tools[0].name}": put "{points[0].name}" before it for clicks.'
        yield Advice("hint", message)
    if len(points) > 1:
        names = _list([f'"{point.name}"' for point in points])
        message = f"The editor's key K takes the last of {names} only: put their labels into one tag."
        yield Advice("hint", message)
    if "boxes" not in kinds and interface.outputs_for(image):
        message = f'On "{image.name}" no tag takes boxes, so none can be refined or segmented.'
        yield Advice("hint", message, _labels_snippet("RectangleLabels", "box", interface, image))
    if "text" not in kinds:
        text = Element("TextArea", name=_free("prompt", interface), toName=image.name, editable="true", rows="1")
        text.set("placeholder", "what to find")
        message = f'On "{image.name}" no tag takes words; with this one objects are found by name.'
        yield Advice("hint", message, _snippet(text))
    if points and not any(_can_tweak(point) for point in points):
        tweak = Element("Label", value="Tweak", hotkey="x", model_assist="tweak")
        message = f'With this label in "{points[0].name}", X and a click tighten a standing box in place.'
        yield Advice("hint", message, _snippet(tweak))
    yield from _unwritable(interface, image)


def _unwritable(interface: Interface, image: ImageTag) -> Iterator[Advice]:
    """Labels that can be asked for but not answered, because the other tag does not have them."""
    for prompt in interface.prompts_for(image):
        for output in interface.outputs_for(image, prompt):
            lacking = [f'"{name}"' for name in prompt.classes if output.labels and not output.label(name)]
            if lacking:
                message = f'"{output.name}" cannot hold {_list(lacking)}, which "{prompt.name}" asks for: add it there.'
                yield Advice("hint", message)


def _labels_snippet(tag: str, name: str, interface: Interface, image: ImageTag) -> str:
    element = Element(tag, name=_free(name, interface), toName=image.name)
    for label in interface.labels or ("Object",):
        SubElement(element, "Label", value=label)
    return _snippet(element)


def _snippet(element: Element) -> str:
    indent(element)
    return tostring(element, encoding="unicode")


def _free(name: str, interface: Interface) -> str:
    """A name that no tag has yet."""
    numbered = (f"{name}{number}" for number in range(2, len(interface.names) + 3))
    return next(free for free in (name, *numbered) if free not in interface.names)


def _asks(control: Control) -> bool:
    """Whether it asks for new objects: a tag that only tweaks standing ones does not."""
    return "tweak" not in (control.assists or ())


def _asked(control: Control) -> str:
    return "examples" if control.takes_exemplars else _ASKED[control.takes] if control.takes else ""


def _can_tweak(control: Control) -> bool:
    return not _asks(control) or any("tweak" in (label.assists or ()) for label in control.labels)


def _is_mute_point(control: Control, image: ImageTag) -> bool:
    return control.takes == "points" and not control.smart and image.name in control.to_name


def _list(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
