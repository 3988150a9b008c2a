"""What a labelling configuration means to Tator: which images there are, what asks and what is answered.

Frozen values only; ``reader`` makes them from XML.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

from label_config.concept_options import EXEMPLARS, concept_options, mode_of
from label_config.errors import UnknownTag
from label_config.names import STRENGTHS, same_name
from label_config.written import switch

Takes = Literal["points", "boxes", "strokes", "text"]
"""What a tag sends as a prompt."""

Gives = Literal["box", "polygon", "mask", "ellipse"]
"""What a tag can hold as an answer."""

ASSISTS = frozenset({"refine", "classify", "tweak"})
"""Words of ``model_assist``; ``none`` alone switches all of them off."""

OUTPUTS = frozenset({"box", "polygon", "mask", "ellipse"})
"""Words of ``model_output``: what a prompt from this tag is answered with."""

TAKES: Mapping[str, Takes] = MappingProxyType(
    {
        "keypoint": "points",
        "keypointlabels": "points",
        "rectangle": "boxes",
        "rectanglelabels": "boxes",
        "rectangle3point": "boxes",
        "rectangle3pointlabels": "boxes",
        "brush": "strokes",
        "brushlabels": "strokes",
        "bitmask": "strokes",
        "bitmasklabels": "strokes",
        "magicwand": "strokes",
        "textarea": "text",
    }
)
GIVES: Mapping[str, Gives] = MappingProxyType(
    {
        "rectangle": "box",
        "rectanglelabels": "box",
        "rectangle3point": "box",
        "rectangle3pointlabels": "box",
        "polygon": "polygon",
        "polygonlabels": "polygon",
        "brush": "mask",
        "brushlabels": "mask",
        "bitmask": "mask",
        "bitmasklabels": "mask",
        "ellipse": "ellipse",
        "ellipselabels": "ellipse",
    }
)
SERVED = frozenset(TAKES) | frozenset(GIVES) | {"labels"}
"""Tags, in lower case, that become a `Control`; all others are none of Tator's business."""

_VARIABLE = re.compile(r"\$([\w[\].{}]+)")
_NOTHING: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class ImageTag:
    """An ``<Image>``: its name, and where in a task's data its URL is found.

    Attributes:
        name: what results call ``to_name``.
        value_key: path in the task's data without the dollar sign (``image``, ``meta.views[0].url``); empty for
            a constant URL.
        value: the attribute as written, which may have text around the variable.
        is_list: the data is a list of pages (``valueList``); results then carry an ``item_index``.
    """

    name: str
    value_key: str
    value: str = ""
    is_list: bool = False

    def urls(self, data: Mapping[str, Any]) -> tuple[str, ...]:
        """URLs of this image in a task's data: one, or one a page for a list; empty where the task has none."""
        written = self.value or f"${self.value_key}"
        whole = _VARIABLE.fullmatch(written)
        if not whole:
            return (_VARIABLE.sub(lambda found: str(_look_up(data, found[1]) or ""), written),)
        found = _look_up(data, whole[1])
        items = found if isinstance(found, (list, tuple)) else [found]
        return tuple(item for item in items if isinstance(item, str) and item)


@dataclass(frozen=True)
class Label:
    """One class: its name in results, and the names that models use for it.

    Attributes:
        value: the name that results carry (the alias where there is one).
        predicted_values: names of the same class in models' vocabularies.
        attrs: the label's attributes as written.
    """

    value: str
    predicted_values: tuple[str, ...] = ()
    attrs: Mapping[str, str] = field(default_factory=lambda: _NOTHING, hash=False)

    @property
    def assists(self) -> frozenset[str] | None:
        """Words of the label's own ``model_assist``; None where it says nothing."""
        return words_of(_get(self.attrs, "model_assist"), ASSISTS)

    @property
    def oriented(self) -> bool | None:
        """The label's own ``model_oriented``; None where it says nothing."""
        return switch(_get(self.attrs, "model_oriented"))


@dataclass(frozen=True)
class Control:
    """A tag that asks, that holds an answer, or both.

    Attributes:
        name: what requests and results call ``from_name``.
        tag: the tag as written, such as ``RectangleLabels``.
        to_name: names of the images it works on.
        labels: its classes in order; for a plain ``<Rectangle>`` those of the ``<Labels>`` beside it.
        smart: whether it may send prompts (Label Studio's default is that it may).
        score_threshold: ``model_score_threshold``, 0..1.
        options: every ``model_*`` attribute, in lower case and without that prefix.
        attrs: all attributes as written.
        labels_from: name of the tag that its labels stand in: its own, that of a ``<Labels>``, or None.
    """

    name: str
    tag: str
    to_name: tuple[str, ...]
    labels: tuple[Label, ...] = ()
    smart: bool = True
    score_threshold: float | None = None
    options: Mapping[str, str] = field(default_factory=lambda: _NOTHING, hash=False)
    attrs: Mapping[str, str] = field(default_factory=lambda: _NOTHING, hash=False)
    labels_from: str | None = None

    @property
    def takes(self) -> Takes | None:
        """What it sends as a prompt; None where it is no input (outputs, and text that is status or of a region)."""
        if self.result_type == "textarea" and (
            not self.smart
            or _get(self.attrs, "editable").lower() == "false"
            or _get(self.attrs, "perRegion").lower() == "true"
        ):
            return None
        return TAKES.get(self.tag.lower())

    @property
    def gives(self) -> Gives | None:
        """What it can hold as an answer; None where it is an input only."""
        return GIVES.get(self.tag.lower())

    @property
    def result_type(self) -> str:
        """``type`` of its results, which is also the key of the labels in ``value``: ``rectanglelabels``."""
        return self.tag.lower().replace("3point", "")

    @property
    def assists(self) -> frozenset[str] | None:
        """Words of ``model_assist``; None where it is absent, and the project's settings decide."""
        return words_of(self.options.get("assist"), ASSISTS)

    @property
    def outputs(self) -> frozenset[str] | None:
        """Words of ``model_output``; None where it is absent."""
        return words_of(self.options.get("output"), OUTPUTS)

    @property
    def labels_key(self) -> str | None:
        """Path in the task's data that the labels come from (``value="$brands"``); None where they stand in the XML."""
        found = _VARIABLE.fullmatch(_get(self.attrs, "value"))
        return found[1] if found and self.tag.lower().endswith("labels") else None

    @property
    def takes_exemplars(self) -> bool:
        """Whether its boxes are examples of what is to be found."""
        return self.takes == "boxes" and mode_of(self.options) == EXEMPLARS

    def is_negative(self, label: str) -> bool:
        """Whether its boxes of that label show what is not meant."""
        return self.takes_exemplars and concept_options(self.options).is_negative(label)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the labels that are classes of objects; one that tweaks is a tool, and so is a negative example."""
        return tuple(label.value for label in self.labels if not self._is_tool(label.value))

    def _is_tool(self, label: str) -> bool:
        return "tweak" in (self.assists_for(label) or ()) or self.is_negative(label)

    def assists_for(self, label: str | None) -> frozenset[str] | None:
        """Assists for a prompt with this label: the label's own where it has some, else the control's."""
        own = next((found.assists for found in self.labels if found.value == label), None)
        return self.assists if own is None else own

    def oriented_for(self, label: str | None) -> bool | None:
        """Whether boxes of this label are answered turned: its own ``model_oriented``, else the tag's."""
        own = next((found.oriented for found in self.labels if found.value == label), None)
        return switch(self.options.get("oriented", "")) if own is None else own

    def label(self, value: str) -> Label | None:
        """The label of that name in results, or None."""
        return next((label for label in self.labels if label.value == value), None)


@dataclass(frozen=True)
class Interface:
    """A whole configuration.

    Attributes:
        images: the images, in document order.
        controls: the tags for images that Tator serves, in document order.
        warnings: what was not understood, each in a sentence; never a reason to refuse.
        names: every name that is taken, be it by a tag that Tator does not serve.
    """

    images: tuple[ImageTag, ...] = ()
    controls: tuple[Control, ...] = ()
    warnings: tuple[str, ...] = ()
    names: frozenset[str] = frozenset()

    def control(self, name: str) -> Control:
        """The control of that name.

        Raises:
            UnknownTag: there is none, or it is of a kind that Tator does not serve.
        """
        for control in self.controls:
            if control.name == name:
                return control
        raise UnknownTag(_no_such("tag", name, [control.name for control in self.controls]))

    def image(self, name: str) -> ImageTag:
        """The image of that name.

        Raises:
            UnknownTag: there is none.
        """
        for image in self.images:
            if image.name == name:
                return image
        raise UnknownTag(_no_such("image", name, [image.name for image in self.images]))

    def prompts_for(self, image: str | ImageTag) -> tuple[Control, ...]:
        """Smart controls of an image that send prompts, in document order."""
        return tuple(control for control in self._on(image) if control.smart and control.takes)

    def outputs_for(self, image: str | ImageTag, prompt: Control | None = None) -> tuple[Control, ...]:
        """Controls of an image that hold answers, in order; given a prompt, those that its ``model_output`` allows."""
        allowed = prompt.outputs if prompt else None
        return tuple(c for c in self._on(image) if c.gives and (allowed is None or c.gives in allowed))

    @property
    def labels(self) -> tuple[str, ...]:
        """Classes of all controls, each once, in order; the labels of Tweak tools are no classes."""
        return tuple(dict.fromkeys(name for control in self.controls for name in control.classes))

    def find_label(self, control: Control | str, model_label: str) -> str | None:
        """The control's label for a model's name, or None.

        Looked for in ``predicted_values``, then among the labels themselves; then again with case, underscores
        and hyphens folded, and at last with simple plurals folded. A label found through its alias or its shown
        name is answered by the name that results carry.

        Raises:
            UnknownTag: the control is given by a name that does not exist.
        """
        control = self.control(control) if isinstance(control, str) else control
        classes = set(control.classes)
        labels = [label for label in control.labels if label.value in classes]
        for strength in STRENGTHS:
            for names in (_predicted, _own):
                for label in labels:
                    if any(same_name(name, model_label, strength) for name in names(label)):
                        return label.value
        return None

    def _on(self, image: str | ImageTag) -> Iterator[Control]:
        name = image if isinstance(image, str) else image.name
        return (control for control in self.controls if name in control.to_name)


def words_of(written: str | None, known: frozenset[str]) -> frozenset[str] | None:
    """Known words of a comma-separated attribute; None where it is absent or has only unknown ones."""
    if written is None or not (words := split_words(written)):
        return None
    if words == ["none"]:
        return frozenset()
    return frozenset(words) & known or None


def split_words(written: str) -> list[str]:
    """Words of a comma-separated attribute, in lower case."""
    return [word for word in (part.strip().lower() for part in written.split(",")) if word]


def _predicted(label: Label) -> Sequence[str]:
    return label.predicted_values


def _own(label: Label) -> Sequence[str]:
    return (label.value, _get(label.attrs, "value"))


def _get(attrs: Mapping[str, str], name: str) -> str:
    """An attribute whatever its case, as the editor reads it; empty where it is absent."""
    wanted = name.lower()
    return next((value for key, value in attrs.items() if key.lower() == wanted), "")


def _look_up(data: Any, path: str) -> Any:
    """A value in nested data by a path such as ``meta.views[0].url`` (as lodash's ``get``), or None."""
    if isinstance(data, Mapping) and path in data:
        return data[path]
    for part in re.findall(r"[^.[\]]+", path):
        if isinstance(data, Mapping):
            data = data.get(part)
        elif isinstance(data, (list, tuple)) and part.isdecimal() and len(part) < 10 and int(part) < len(data):
            data = data[int(part)]
        else:
            return None
    return data


def _no_such(kind: str, name: str, present: Sequence[str]) -> str:
    known = f"it has {', '.join(present)}" if present else f"it has no {kind} that Tator serves"
    return f'The labelling configuration has no {kind} named "{name}"; {known}.'
