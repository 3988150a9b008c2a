"""Classes → labelling configuration (XML), from the files in ``templates/``.

A template is a complete configuration with placeholders in attribute values. ``{class}``, ``{colour}``, ``{key}`` and
``{digit}`` stand in a ``<Label>``, which is repeated for every class; ``{strip_url}`` stands in the live strip, which
is left out where no URL is given.

Hotkeys in Label Studio's editor are global, and every label without one is given the next free key, be it that of a
tool (B, E, K, M, P, V, W). So each label gets one here: plain keys in the point tool, the same digits with a modifier
in the others, and where these run out a key that does not exist.
"""

from __future__ import annotations

import html
import re
from collections.abc import Collection, Sequence
from importlib import resources
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit
from xml.etree.ElementTree import Element, indent, tostring

from defusedxml import ElementTree as SafeXml  # type: ignore[import-untyped]

from label_config.errors import LabelConfigError
from label_config.palette import colour

KEYS = "1234567890qtyiasdfgjlzcn"
"""Keys for labels; the editor's own (b e h k m o p r u v w) and X, which is Tweak's, are left out."""

SHIFTED = "34567890qtyiasdfgjlzcn"
"""Keys for labels with Shift; Shift+1 and Shift+2 are the editor's zoom."""

DIGITS = "1234567890"

TWEAK = "Tweak"
"""Name of the label in the templates' point tool that tightens standing boxes and is no class."""

NEGATIVE = "Not this"
"""Name of the label in the example tool whose boxes show what is not meant."""

NO_HOTKEY = " "
"""Keeps the editor from choosing a key by itself."""

_IMAGE_KEY = re.compile(r"\w+(?:[.\[\]]+\w+)*\]?")
_URL_SAFE = "/:?#[]@!&()*+,;=%-._~"
_NOT_XML = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufffe\uffff]")


def template_names() -> tuple[str, ...]:
    """Names of the templates, in alphabetical order."""
    files = resources.files("label_config").joinpath("templates").iterdir()
    return tuple(sorted(file.name.removesuffix(".xml") for file in files if file.name.endswith(".xml")))


def build(
    template: str,
    classes: Sequence[str],
    strip_url: str | None = None,
    image_key: str = "image",
    project: int | None = None,
) -> str:
    """Make a labelling configuration.

    Args:
        template: name of a template: ``boxes``, ``masks``, ``polygons``, ``sam3`` or ``all``.
        classes: class names in order; blanks around them are cut off.
        strip_url: URL of the backend's ``/strip`` as browsers reach it; None leaves the live strip out.
        image_key: key (or path) of the image's URL in the tasks' data.
        project: id of the project where it is known; added to the strip's URL as ``?project=``.

    Returns:
        The configuration as XML.

    Raises:
        LabelConfigError: no such template, no or repeated or empty classes, or a URL or key that cannot be used.

    Example:
        >>> print(build("boxes", ["Car", "Person"]).splitlines()[0])
        <View>
    """
    root = _load(template)
    names = _checked(classes, {label.get("value", "") for label in root.iter("Label")})
    key = _checked_key(image_key)
    _fill_strip(root, _strip(strip_url, project))
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag == "Label" and child.get("value") == "{class}":
                _repeat(parent, child, names)
    for image in root.iter("Image"):
        image.set("value", f"${key}")
    indent(root)
    return tostring(root, encoding="unicode")


def _load(template: str) -> Element:
    if template not in template_names():
        raise LabelConfigError(f'There is no template "{template}"; there are {", ".join(template_names())}.')
    text = resources.files("label_config").joinpath("templates", f"{template}.xml").read_text(encoding="utf-8")
    root: Element = SafeXml.fromstring(text)
    return root


def _repeat(parent: Element, sample: Element, names: Sequence[str]) -> None:
    """Put one label for each class in the sample's place."""
    place = list(parent).index(sample)
    parent.remove(sample)
    for index, name in enumerate(names):
        label = Element("Label", sample.attrib)
        label.set("value", name)
        label.set("background", colour(index))
        label.set("hotkey", _hotkey(sample.get("hotkey", ""), index))
        if "$" in name:  # the editor would show a task's data in place of "$word"
            label.set("html", html.escape(name))
        parent.insert(place + index, label)


def _hotkey(pattern: str, index: int) -> str:
    keys = [*DIGITS] if "{digit}" in pattern else [*KEYS, *(f"shift+{key}" for key in SHIFTED)]
    return re.sub(r"\{\w+\}", keys[index], pattern) if index < len(keys) else NO_HOTKEY


def _fill_strip(root: Element, url: str | None) -> None:
    for parent in list(root.iter()):
        for child in list(parent):
            if "{strip_url}" not in child.get("value", ""):
                continue
            if url is None:
                parent.remove(child)
            else:
                child.set("value", child.get("value", "").replace("{strip_url}", html.escape(url)))


def _strip(url: str | None, project: int | None) -> str | None:
    """The strip's URL with its project, safe within an HTML attribute and free of the editor's ``$variables``."""
    if not url:
        return None
    parts = urlsplit(quote(url.strip(), safe=_URL_SAFE))
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise LabelConfigError(f'The strip\'s URL "{url}" must begin with http:// or https:// and name a host.')
    if project is None:
        return urlunsplit(parts)
    others = [(name, value) for name, value in parse_qsl(parts.query, keep_blank_values=True) if name != "project"]
    return urlunsplit(parts._replace(query=urlencode([*others, ("project", str(project))])))


def _checked_key(image_key: str) -> str:
    key = image_key.strip().removeprefix("$")
    if not _IMAGE_KEY.fullmatch(key):
        raise LabelConfigError(f'"{image_key}" cannot be the key of an image: letters, digits, "_", "." and "[0]" can.')
    return key


def _checked(classes: Sequence[str], taken: Collection[str]) -> list[str]:
    if isinstance(classes, str):
        raise LabelConfigError("Classes are given as a list of names, not as one string.")
    names = [name.strip() for name in classes]
    if not names:
        raise LabelConfigError("There are no classes; give at least one name.")
    seen: set[str] = set()
    for position, name in enumerate(names, start=1):
        if not name:
            raise LabelConfigError(f"The name of class {position} is empty.")
        if _NOT_XML.search(name):
            raise LabelConfigError(f"The name of class {position} has a line break or an unprintable character.")
        if name in (TWEAK, NEGATIVE) and name in taken:
            raise LabelConfigError(f'"{name}" is the name of a tool in the templates; give that class another.')
        if name in seen:
            raise LabelConfigError(f'The class "{name}" is given twice.')
        seen.add(name)
    return names
