"""A model's answer → what it found, and a training target → the answer a model should give.

Only objects that stand whole in the text are taken: an answer that was cut short ends with its last whole object, and
nothing is completed or guessed. Parsers that repair JSON (``json_repair``, ``partial-json-parser``, ``jiter``) close
what is open, so ``[10, 20, 300, 3`` becomes a box that the model never wrote; here the standard decoder reads one
object after the other instead.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tator_sdk.geometry import Xyxy

Output = Literal["bbox", "point"]
"""What a model is asked to write for each object."""

BOX_KEYS = ("bbox_2d", "bbox", "box")
POINT_KEYS = ("point_2d", "point")
LABEL_KEYS = ("label", "class", "name")
KEY_OF: dict[Output, str] = {"bbox": BOX_KEYS[0], "point": POINT_KEYS[0]}

MOST_CHARACTERS = 200_000
"""Of an answer that are read; 768 tokens are some 3,000."""

_OPENING = re.compile(r"\[(?=\s*(?:[\[{\]\"\d-]|$))|\{(?=\s*(?:[\"}]|$))")  # brackets of JSON, not those of prose
_DECODER = json.JSONDecoder(strict=False)  # line breaks inside a label do no harm


@dataclass(frozen=True)
class Detected:
    """One object as the model writes it.

    Attributes:
        label: its name, blanks tidied; empty where the model gave none.
        box: x1, y1, x2, y2 in the model's own coordinates (:mod:`tator_ml.vlm.coordinates`), finite, as written:
            perhaps outside the picture, or with its corners in another order.
        point: x, y likewise.
    """

    label: str
    box: Xyxy | None = None
    point: tuple[float, float] | None = None


@dataclass(frozen=True)
class Parsed:
    """An answer, read.

    Attributes:
        detections: the whole objects with a box or a point, in order.
        complete: whether the text is JSON to its end; False for one that was cut short or is broken.
        problems: what was left out and why, each once, in words for the strip.
    """

    detections: tuple[Detected, ...]
    complete: bool
    problems: tuple[str, ...] = ()


def parse(text: str) -> Parsed:
    """Read an answer: JSON, bare or fenced or with prose around it.

    Taken are a list of objects, ``{"detections": [...]}`` and a single object, with the keys ``bbox_2d|bbox|box``,
    ``point_2d|point`` and ``label|class|name``. An empty list is an answer without objects, and no problem.
    """
    values, whole = _values(text[:MOST_CHARACTERS])
    problems: dict[str, None] = {}
    if not whole or len(text) > MOST_CHARACTERS:
        problems["The answer breaks off or is no valid JSON in places; only its whole objects were taken."] = None
    elif not values:
        problems["The answer has no JSON."] = None
    detections: list[Detected] = []
    for value in values:
        for item in _objects(value):
            found = _detected(item)
            if isinstance(found, Detected):
                detections.append(found)
            elif whole or item:  # what is left of a broken object has been mentioned
                problems[found] = None
    return Parsed(tuple(detections), whole and bool(values) and len(text) <= MOST_CHARACTERS, tuple(problems))


def answer(detections: Sequence[Detected], output: Output) -> str:
    """What a model should write: a compact JSON list, coordinates rounded to whole numbers.

    Args:
        detections: in the model's coordinates.
        output: which of box and point to write.

    Raises:
        ValueError: a detection lacks what is to be written.
    """
    items = []
    for one in detections:
        place = one.box if output == "bbox" else one.point
        if place is None:
            raise ValueError(f"{one.label!r} has no {output}")
        items.append({KEY_OF[output]: [round(value) for value in place], "label": one.label})
    return json.dumps(items, ensure_ascii=False)


def _values(text: str) -> tuple[list[Any], bool]:
    """All JSON lists and objects that stand whole in the text, outermost first; and whether none is broken."""
    values: list[Any] = []
    whole = True
    at = 0
    while opening := _OPENING.search(text, at):
        at = opening.start()
        try:
            value, at = _DECODER.raw_decode(text, at)
        except RecursionError:
            return values, False  # thousands of brackets: no answer, and each would be read to the end
        except ValueError:  # broken, or a number of thousands of digits
            whole = False
            at += 1
        else:
            values.append(value)
    return values, whole


def _objects(value: Any) -> Iterator[Any]:
    """The objects in a value: of lists, however nested, and of ``detections``."""
    if isinstance(value, list):
        for item in value:
            if isinstance(item, (list, dict)):
                yield from _objects(item)
            else:
                yield None
    elif isinstance(value.get("detections"), list):
        yield from _objects(value["detections"])
    else:
        yield value


def _detected(item: Any) -> Detected | str:
    """What an object says, or why it says nothing."""
    if not isinstance(item, dict):
        return "Something in the answer is no object with a box or a point."
    box, point = _numbers(item, BOX_KEYS, 4), _numbers(item, POINT_KEYS, 2)
    if not box and not point:
        wrong = next((key for key in (*BOX_KEYS, *POINT_KEYS) if key in item), None)
        if wrong:
            return f'An object\'s "{wrong}" is no list of {4 if wrong in BOX_KEYS else 2} numbers.'
        return "An object has neither a box nor a point."
    named = (item.get(key) for key in LABEL_KEYS)
    label = next((name for name in named if isinstance(name, (str, int)) and not isinstance(name, bool)), "")
    # a lone surrogate could not be sent on
    label = " ".join(str(label).encode("utf-8", "replace").decode().split())
    return Detected(label, (box[0], box[1], box[2], box[3]) if box else None, (point[0], point[1]) if point else None)


def _numbers(item: dict[str, Any], keys: Sequence[str], count: int) -> list[float] | None:
    """The first of the keys that has exactly so many finite numbers."""
    for key in keys:
        values = item.get(key)
        if isinstance(values, list) and len(values) == count:
            numbers = [number for value in values if (number := _number(value)) is not None]
            if len(numbers) == count:
                return numbers
    return None


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        number = float(value)
    except OverflowError:  # an integer beyond 1e308
        return None
    return number if math.isfinite(number) else None
