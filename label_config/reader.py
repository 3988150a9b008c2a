"""Labelling configuration (any Label Studio XML) → `Interface`.

Tag and attribute names are taken in any case, as the editor takes them. Nothing in a configuration is trusted: the
size and the depth are limited, and entities and document types are refused.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import lru_cache
from types import MappingProxyType
from typing import Any
from xml.etree.ElementTree import ParseError

from defusedxml import ElementTree as SafeXml  # type: ignore[import-untyped]
from defusedxml.common import DefusedXmlException  # type: ignore[import-untyped]

from label_config.advice import Advice, problems
from label_config.concept_options import unreadable_exemplars
from label_config.errors import LabelConfigError, UnknownTag
from label_config.interface import (
    ASSISTS,
    OUTPUTS,
    SERVED,
    TAKES,
    Control,
    ImageTag,
    Interface,
    Label,
    split_words,
)
from label_config.word_options import unreadable
from label_config.written import share, unreadable_switch

__all__ = [
    "MAX_BYTES",
    "Advice",
    "Control",
    "ImageTag",
    "Interface",
    "Label",
    "LabelConfigError",
    "UnknownTag",
    "problems",
    "read",
    "read_cached",
]

MAX_BYTES = 1024 * 1024
"""Size of the largest configuration that is read."""

MAX_DEPTH = 200
"""Deepest nesting of tags that is read."""

_OBJECTS = frozenset(
    {"image", "text", "hypertext", "audio", "audioplus", "video", "paragraphs", "timeseries", "list", "table", "pdf"}
    | {"chat", "custominterface"}
)
"""Tags that controls can point to, in lower case."""


@lru_cache(maxsize=128)
def read_cached(xml: str) -> Interface:
    """As `read`, remembered by the text: a configuration comes with every click and hardly ever changes."""
    return read(xml)


def read(xml: str) -> Interface:
    """Read a labelling configuration.

    Args:
        xml: the configuration as Label Studio sends it.

    Returns:
        Its images and the controls on them; no images for a configuration of text, audio or video.

    Raises:
        LabelConfigError: the text is empty, too large, no XML, or has entities or a document type.

    Example:
        >>> interface = read('<View><Image name="i" value="$url"/><RectangleLabels name="r" toName="i">'
        ...                  '<Label value="Car"/></RectangleLabels></View>')
        >>> interface.outputs_for("i")[0].result_type, interface.labels
        ('rectanglelabels', ('Car',))
    """
    found = _Found()
    _walk(_parse(xml), found)
    images = tuple(_images(found))
    controls = tuple(_controls(found, {image.name for image in images}))
    return Interface(images, controls, tuple(dict.fromkeys(found.warnings)), frozenset(found.names))


@dataclass
class _Tag:
    """One tag with its attributes as written and, for a control, its labels."""

    tag: str
    attrs: dict[str, str]
    labels: dict[str, Label] = field(default_factory=dict)
    """By their values."""

    def get(self, name: str) -> str:
        wanted = name.lower()
        return next((value for key, value in self.attrs.items() if key.lower() == wanted), "")

    @property
    def kind(self) -> str:
        return self.tag.lower()


@dataclass
class _Found:
    """What a walk through the tree collects."""

    objects: list[_Tag] = field(default_factory=list)
    controls: list[_Tag] = field(default_factory=list)
    names: set[str] = field(default_factory=set)
    """All names, also of tags that are not collected."""
    warnings: list[str] = field(default_factory=list)


def _parse(xml: str) -> Any:
    if not isinstance(xml, str) or not xml.strip():
        raise LabelConfigError("The labelling configuration is empty.")
    if len(xml) > MAX_BYTES or len(xml.encode("utf-8", "replace")) > MAX_BYTES:
        raise LabelConfigError("The labelling configuration is larger than 1 MB, which is more than Tator reads.")
    try:
        return SafeXml.fromstring(xml.strip("\ufeff \t\r\n"), forbid_dtd=True)
    except DefusedXmlException as error:
        raise LabelConfigError(
            "The labelling configuration has a document type or entities, which Tator refuses to read."
        ) from error
    except ParseError as error:
        line, column = error.position
        raise LabelConfigError(
            f"The labelling configuration is not valid XML: see line {line}, column {column + 1}."
        ) from error
    except ValueError as error:  # lone surrogates and NUL cannot even be handed to the parser
        raise LabelConfigError("The labelling configuration has characters that XML cannot hold.") from error


def _walk(root: Any, found: _Found) -> None:
    """Collect tags in document order, without recursion: nesting must not exhaust the stack."""
    waiting: list[tuple[Any, _Tag | None, int]] = [(root, None, 0)]
    while waiting:
        element, owner, depth = waiting.pop()
        if depth > MAX_DEPTH:
            raise LabelConfigError("The labelling configuration is nested too deeply to be read.")
        tag = _Tag(element.tag.rpartition("}")[2], dict(element.attrib))
        if tag.kind == "repeater":
            found.warnings.append("Tags inside a <Repeater> are not served: their names depend on each task.")
            continue
        if tag.kind == "label":
            _add_label(tag, owner, found)
        elif tag.kind in SERVED or tag.kind in _OBJECTS:
            owner = _add_tag(tag, owner, found)
        elif tag.get("name"):
            found.names.add(tag.get("name"))
        waiting += [(child, owner, depth + 1) for child in reversed(element)]


def _add_tag(tag: _Tag, owner: _Tag | None, found: _Found) -> _Tag | None:
    name = tag.get("name")
    if not name:
        if tag.kind not in _OBJECTS or tag.kind == "image":
            found.warnings.append(f"A <{tag.tag}> has no name and is passed over.")
        return owner
    if name in found.names:
        found.warnings.append(f'The name "{name}" is given twice; only the first tag counts.')
        return owner
    found.names.add(name)
    if tag.kind in _OBJECTS:
        found.objects.append(tag)
        return owner
    found.controls.append(tag)
    return tag


def _add_label(tag: _Tag, owner: _Tag | None, found: _Found) -> None:
    value = tag.get("alias") or tag.get("value")
    if owner is None or not value:
        return
    if value in owner.labels:
        found.warnings.append(f'The label "{value}" stands twice in "{owner.get("name")}".')
        return
    predicted = (name.strip() for name in tag.get("predicted_values").split(","))
    names = tuple(name for name in predicted if name)
    owner.labels[value] = Label(value, names, MappingProxyType(tag.attrs))
    _check_words(f'The label "{value}"', "model_assist", tag.get("model_assist"), ASSISTS, found)
    found.warnings += unreadable_switch(f'The label "{value}"', {"oriented": tag.get("model_oriented")}, "oriented")


def _images(found: _Found) -> Iterable[ImageTag]:
    for tag in found.objects:
        if tag.kind == "image":
            many = tag.get("valueList")
            value = many or tag.get("value")
            yield ImageTag(tag.get("name"), value[1:] if value.startswith("$") else "", value, bool(many))


def _controls(found: _Found, images: set[str]) -> Iterable[Control]:
    controls = [made for tag in found.controls if (made := _control(tag, found, images))]
    for control in controls:
        if control.labels or control.labels_key:
            yield replace(control, labels_from=control.name)
        elif control.result_type.endswith(("labels", "textarea")):
            yield control
        else:
            shared = (c for c in controls if c.result_type == "labels" and set(c.to_name) & set(control.to_name))
            beside = next(shared, None)
            yield replace(control, labels=beside.labels, labels_from=beside.name) if beside else control


def _control(tag: _Tag, found: _Found, images: set[str]) -> Control | None:
    name, options = tag.get("name"), _options(tag)
    to_name = _targets(tag, found)
    if not to_name & images:
        return None
    for option, known in (("assist", ASSISTS), ("output", OUTPUTS)):
        _check_words(f'"{name}"', f"model_{option}", options.get(option, ""), known, found)
    found.warnings += unreadable_switch(f'"{name}"', options, "oriented")
    if tag.kind == "textarea":
        found.warnings.extend(unreadable(f'"{name}"', options))
    else:
        own = list(tag.labels)
        boxes = TAKES.get(tag.kind) == "boxes"
        found.warnings.extend(unreadable_exemplars(f'"{name}"', options, boxes, own))
    return Control(
        name=name,
        tag=tag.tag,
        to_name=tuple(part for part in _split(tag.get("toName")) if part in images) or tuple(to_name & images),
        labels=tuple(tag.labels.values()),
        smart=tag.get("smart").strip().lower() != "false",
        score_threshold=_threshold(name, options.get("score_threshold"), found),
        options=MappingProxyType(options),
        attrs=MappingProxyType(tag.attrs),
    )


def _targets(tag: _Tag, found: _Found) -> set[str]:
    """Names of the objects a control works on; without ``toName`` the only object, as the editor has it."""
    written = _split(tag.get("toName"))
    if not written:
        return {found.objects[0].get("name")} if len(found.objects) == 1 else set()
    known = {each.get("name") for each in found.objects}
    for name in written:
        if name not in known:
            found.warnings.append(f'"{tag.get("name")}" points to "{name}", which this configuration does not have.')
    return set(written) & known


def _options(tag: _Tag) -> dict[str, str]:
    prefix = "model_"
    return {key.lower()[len(prefix) :]: value for key, value in tag.attrs.items() if key.lower().startswith(prefix)}


def _threshold(name: str, written: str | None, found: _Found) -> float | None:
    if written is None:
        return None
    threshold = share(written)
    if threshold is None:
        found.warnings.append(
            f'model_score_threshold="{written}" of "{name}" is no number from 0 to 1 and is passed over.'
        )
    return threshold


def _check_words(where: str, option: str, written: str, known: Iterable[str], found: _Found) -> None:
    unknown = [word for word in split_words(written) if word not in known and word != "none"]
    if unknown:
        known_words = ", ".join(sorted(known))
        found.warnings.append(f'{where} has {option}="{", ".join(unknown)}", but Tator knows only {known_words}.')


def _split(written: str) -> list[str]:
    return [part for part in (piece.strip() for piece in written.split(",")) if part]
