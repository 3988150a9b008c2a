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
        snippet: XML to paste beside the image's tag, where something is to be added.
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
    outputs = interface.outputs_for(image)
    prompts = [prompt for prompt in interface.prompts_for(image) if not _tweaks(prompt)]
    if not outputs:
        return
    answers = _list([f"{_ANSWERED[out.gives]} ({out.name})" for out in outputs if out.gives])
    if prompts:
        asks = _list([f"{_ASKED[prompt.takes]} ({prompt.name})" for prompt in prompts if prompt.takes])
        yield Advice("serves", f'On "{image.name}", {asks} are answered with {answers}.')
    else:
        yield Advice("serves", f'On "{image.name}", predictions can be retrieved as {answers}.')


def _missing(interface: Interface, image: ImageTag) -> Iterator[Advice]:
    if not interface.outputs_for(image):
        yield Advice(
            "missing",
            f'On "{image.name}" no tag can hold an answer; add boxes like these, or polygons or a brush.',
            _labels_snippet("RectangleLabels", "box", interface, image),
        )
    if any(prompt.takes == "points" and not _tweaks(prompt) for prompt in interface.prompts_for(image)):
        return
    mute = [control.name for control in interface.controls if _is_mute_point(control, image)]
    if mute:
        yield Advice("missing", f'Clicks do not reach Tator because {_list(mute)} has smart="false"; remove that.')
    else:
        yield Advice(
            "missing",
            f'On "{image.name}" no tag takes clicks; put this before all other tools, so that the smart button finds it first.',
            _labels_snippet("KeyPointLabels", "point", interface, image),
        )


def _hints(interface: Interface, image: ImageTag) -> Iterator[Advice]:
    prompts = interface.prompts_for(image)
    drawn = [prompt for prompt in prompts if prompt.takes != "text"]
    kinds = {prompt.takes for prompt in prompts if not _tweaks(prompt)}
    if drawn and drawn[0].takes != "points" and "points" in kinds:
        yield Advice(
            "hint",
            f'The smart button starts with the first smart tag, which is "{drawn[0].name}": put the keypoints before it.',
        )
    if "boxes" not in kinds:
        snippet = _labels_snippet("RectangleLabels", "box", interface, image)
        yield Advice("hint", f'On "{image.name}" no tag takes boxes, so none can be refined or segmented.', snippet)
    if "text" not in kinds:
        text = Element("TextArea", name=_free("prompt", interface), toName=image.name, editable="true", rows="1")
        text.set("placeholder", "what to find")
        yield Advice("hint", f'On "{image.name}" no tag takes words; with this one objects are found by name.', _snippet(text))
    if not any(_tweaks(prompt) for prompt in prompts):
        tweak = Element("KeyPointLabels", name=_free("tweak", interface), toName=image.name, model_assist="tweak")
        SubElement(tweak, "Label", value="Tweak", hotkey="x")
        message = f'On "{image.name}" there is no Tweak tool; with this one a click tightens a standing box in place.'
        yield Advice("hint", message, _snippet(tweak))
    yield from _unwritable(interface, image)


def _unwritable(interface: Interface, image: ImageTag) -> Iterator[Advice]:
    """Labels that can be asked for but not answered, because the other tag does not have them."""
    for prompt in interface.prompts_for(image):
        for output in interface.outputs_for(image, prompt):
            if _tweaks(prompt) or not prompt.labels or not output.labels:
                continue
            lacking = [label.value for label in prompt.labels if _is_class(prompt, label.value) and not output.label(label.value)]
            if lacking:
                names = _list([f'"{name}"' for name in lacking])
                yield Advice("hint", f'"{output.name}" cannot hold {names}, which "{prompt.name}" asks for: add the label there.')


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
    taken = {image.name for image in interface.images} | {control.name for control in interface.controls}
    return next(free for i in range(1, len(taken) + 2) if (free := name if i == 1 else f"{name}{i}") not in taken)


def _tweaks(control: Control) -> bool:
    return "tweak" in (control.assists or ())


def _is_class(control: Control, label: str) -> bool:
    return "tweak" not in (control.assists_for(label) or ())


def _is_mute_point(control: Control, image: ImageTag) -> bool:
    return control.takes == "points" and not control.smart and image.name in control.to_name


def _list(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
