"""What a person typed → what a model is asked; written once for serving and training."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from label_config.names import STRENGTHS, same_name
from tator_ml.vlm.parsing import Output
from tator_sdk.errors import TatorError

DEFAULT_SYSTEM = "You are a careful annotator who locates objects in images and answers with JSON alone."
DEFAULT_TEMPLATE = "Locate every instance of the following in this {image_type}: {items}. {extra_context}"

FORMATS: Mapping[Output, str] = MappingProxyType(
    {
        "bbox": (
            "Answer with a JSON list that has one object for each instance: "
            '{"bbox_2d": [x1, y1, x2, y2], "label": "..."}. Answer [] if there is none.'
        ),
        "point": (
            "Answer with a JSON list that has one object for each instance: "
            '{"point_2d": [x, y], "label": "..."}, the point on the object. Answer [] if there is none.'
        ),
    }
)
"""The line that is added to a prompt which does not say itself what the answer looks like."""

MOST_WORDS = 4
"""Of a phrase in a bare list, unless it names a class."""

_SEPARATORS = re.compile(r"[,;\n\uff0c\uff1b\u3001]+")  # with the Chinese and Japanese ones
_ARTICLES = re.compile(r"^(?:(?:a|an|the|all|every|each|any)\s+)+(?=\S)", re.IGNORECASE)
_BULLET = re.compile(r"^(?:[-*\u2022]|\d+[.)])\s+")
_SENTENCE = re.compile(r"[.\u2026\u3002]$|[?!:\uff1f\uff01\uff1a{}\[\]<>\"`]|[.]\s")
_ASKING = re.compile(
    r"(?:annotate|are|can|could|count|describe|detect|do|does|draw|find|get|give|highlight|how|i|identify|is|locate|look"
    r"|only|outline|please|report|return|search|segment|select|show|there|we|what|where|which|who|you)\s",
    re.IGNORECASE,
)
_RELATING = re.compile(r"\b(?:are|but|except|is|not|that|where|which|who|whose)\b", re.IGNORECASE)
_PLACES = re.compile(r"\{(image_type|items|extra_context)\}")
_OWN_FORMAT = re.compile(r"\bjson\b|bbox|point_2d", re.IGNORECASE)


class NothingToLookFor(TatorError):
    """No words, and no classes either."""


@dataclass(frozen=True)
class PromptStyle:
    """How a model wants to be asked; kept with the model that was trained so.

    Attributes:
        system_prompt: the system message; empty for none.
        template: of the user message for a list of things, with the places ``{image_type}``, ``{items}`` and
            ``{extra_context}``; other braces are left as they are.
        image_type: what the pictures are: ``image``, ``aerial photograph``.
        extra_context: a sentence more about them; may be empty.
    """

    system_prompt: str = DEFAULT_SYSTEM
    template: str = DEFAULT_TEMPLATE
    image_type: str = "image"
    extra_context: str = ""


@dataclass(frozen=True)
class Composed:
    """What the model is sent.

    Attributes:
        system: the system message; empty for none.
        user: the text of the user message.
        items: what is looked for, a class by its own name; None where the person's words were taken as they are.
    """

    system: str
    user: str
    items: tuple[str, ...] | None


def compose(text: str, classes: Sequence[str], style: PromptStyle, output: Output) -> Composed:
    """A person's words → messages.

    Empty text asks for all classes. A bare list (:func:`bare_list`) goes through the style's template. Anything else is
    the prompt itself: template, image type and context are left out, the system message stays. In all cases a line says
    what the answer must look like, unless the text says so itself (it mentions JSON, ``bbox`` or ``point_2d``).

    Raises:
        NothingToLookFor: there are neither words nor classes.
    """
    text = text.strip()
    items = bare_list(text, classes) if text else tuple(dict.fromkeys(classes))
    if items is None:
        return Composed(style.system_prompt, _with_format(text, output), None)
    if not items:
        raise NothingToLookFor("Type what to look for: the labelling configuration has no classes to take instead.")
    return Composed(style.system_prompt, _with_format(_filled(style, items), output), items)


def messages(asked: Composed) -> list[dict[str, Any]]:
    """A question as processors' chat templates take it: the system message where there is one, the picture, the words.

    Marks of special tokens (``<|im_end|>``) are taken apart, so that nobody's words end a message or add a picture.
    """
    user = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": _plain(asked.user)}]}
    return [{"role": "system", "content": _plain(asked.system)}, user] if asked.system else [user]


def _plain(text: str) -> str:
    return text.replace("<|", "< |")


def bare_list(text: str, classes: Sequence[str] = ()) -> tuple[str, ...] | None:
    """The phrases of a bare list, each once, or None for a text that is a prompt of its own.

    A list is phrases between commas, semicolons or line breaks; bullets and numbers before them are left out, and so
    are articles and a last "and" or "or". Each names a class, whatever its case and plural, or has at most four words,
    without marks of a sentence (a final stop, a colon, quotes, brackets), without words of a request at its beginning
    ("find", "where", "please") or of a description anywhere ("that", "not", "is"). So one word or a short phrase alone
    is a list of one, and a final full stop makes a prompt of any list.

    Example:
        >>> bare_list("cars, a bus and kiosk", ["car", "bus"])
        ('car', 'bus', 'kiosk')
        >>> bare_list("Find all cars")
    """
    if name := _class_of(text.strip(), classes):  # it may have a comma
        return (name,)
    parts = [part for part in (_BULLET.sub("", part.strip()) for part in _SEPARATORS.split(text)) if part]
    items: list[str] = []
    for at, part in enumerate(parts):
        for phrase in _joined(part, classes, last=0 < at == len(parts) - 1):
            if not (name := _class_of(phrase, classes)):
                name = _ARTICLES.sub("", phrase)
                if len(name.split()) > MOST_WORDS or any(rule.search(name) for rule in (_SENTENCE, _RELATING)):
                    return None
                if _ASKING.match(name):
                    return None
            items.append(name)
    return tuple(dict.fromkeys(items)) or None


def _joined(part: str, classes: Sequence[str], last: bool) -> list[str]:
    """The phrases of a part that "and" or "or" joins: the last one of a list, or nothing but classes."""
    if _class_of(part, classes):
        return [part]
    part = re.sub(r"^(?:and|or)\s+", "", part, flags=re.IGNORECASE) if last else part
    both = re.split(r"\s+(?:and|or)\s+", part, flags=re.IGNORECASE)
    return both if last or all(_class_of(one, classes) for one in both) else [part]


def _class_of(phrase: str, classes: Sequence[str]) -> str | None:
    """The class that a phrase names, with case, plural and articles folded."""
    for written in dict.fromkeys((phrase, _ARTICLES.sub("", phrase))):
        for strength in STRENGTHS:
            for name in classes:
                if same_name(name, written, strength):
                    return name
    return None


def _filled(style: PromptStyle, items: Sequence[str]) -> str:
    words = {
        "image_type": style.image_type.strip() or "image",
        "items": ", ".join(items),
        "extra_context": style.extra_context.strip(),
    }
    # one pass, so that braces in somebody's words are never taken for a place
    return _PLACES.sub(lambda found: words[found[1]], style.template).strip()


def _with_format(text: str, output: Output) -> str:
    return text if _OWN_FORMAT.search(text) else f"{text}\n{FORMATS[output]}"
