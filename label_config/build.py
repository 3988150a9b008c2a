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
from collections.abc import Callable, Sequence
from importlib import resources
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit
from xml.etree.ElementTree import Element, indent, tostring

from defusedxml import ElementTree as SafeXml  # type: ignore[import-untyped]

from label_config.errors import LabelConfigError
from label_config.palette import TWEAK, colour

KEYS = "1234567890qtyiasdfgjlzcn"
"""Keys for labels; the editor's own (b e h k m o p r u v w) and X, which is Tweak's, are left out."""

SHIFTED = "34567890qtyiasdfgjlzcn"
"""Keys for labels with Shift; Shift+1 and Shift+2 are the editor's zoom."""

DIGITS = "1234567890"

NO_HOTKEY = " "
"""Keeps the editor from choosing a key by itself."""

_PLACEHOLDER = re.compile(r"\{(\w+)\}")
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
        template: name of a template: ``boxes``, ``masks``, ``polygons`` or ``all``.
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
    names = _checked(classes)
    key = _checked_key(image_key)
    _fill_strip(root, _strip(strip_url, project))
    for parent in root.iter():
        for child in list(parent):
            if child.tag == "Label" and child.get("value") == "{class}":
                _repeat(parent, child, names)
    for element in root.iter("Image"):
        element.set("value", f"${key}")
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
        label = Element("Label", {attr: _filled(value, _values(name, index)) for attr, value in sample.attrib.items()})
        if "$" in name:  # the editor would show a task's data in place of "$word"
            label.set("html", html.escape(name))
        if _PLACEHOLDER.search(sample.get("hotkey", "")) and not _hotkey(sample.get("hotkey", ""), index):
            label.set("hotkey", NO_HOTKEY)
        parent.insert(place + index, label)
