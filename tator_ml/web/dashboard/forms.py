"""Forms made from the models of requests and settings: a setting is described once, here it is only shown and read.

What a person types is checked by the model alone; the browser's own checks (``min``, ``required``) are a courtesy.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from werkzeug.datastructures import MultiDict

from tator_sdk.errors import TatorError
from tator_sdk.request_fields import bounds_in_words, bounds_of, sections_of
from tator_sdk.settings import Settings

Model = TypeVar("Model", bound=BaseModel)
Kind = Literal["number", "choice", "switch", "text", "long text", "list"]
Choices = Mapping[str, Sequence[tuple[str, str]]]
"""By field: what can be chosen, and what it is called. An empty value is the default."""

NEVER_ASKED = frozenset({"shard"})
"""Fields that are filled in by whoever starts the jobs."""
LONG_TEXT = 500
YES = ("yes", "on", "true")
NOT_CHOSEN = "the default"
WORDS = {
    "iou": "IoU", "giou": "GIoU", "sam3": "SAM 3", "qwen": "Qwen", "url": "URL", "id": "id", "val": "validation",
    "iter": "iterations", "max": "most", "dim": "side", "labelmap": "label map",
}  # fmt: skip


class Refused(TatorError):
    """What was typed cannot be used.

    Attributes:
        errors: a sentence by field; under an empty name what concerns several.
        values: as they were typed, to be shown again.
    """

    def __init__(self, errors: Mapping[str, str], values: Mapping[str, Any]) -> None:
        super().__init__(next(iter(errors.values()), "This cannot be used."))
        self.errors = dict(errors)
        self.values = dict(values)


@dataclass(frozen=True)
class Field:
    """One setting in a form.

    Attributes:
        name: of the model's field.
        label: for people.
        kind: of the input.
        help: what it is, with its bounds.
        value: as text; of a switch ``yes`` or nothing, of a list one a line.
        default: the model's, as text; ``placeholder`` what holds where nothing is typed.
        options: of a choice, values with what they are called.
        minimum: of a number, as ``maximum``; None for none.
        step: of a number: ``1`` or ``any``.
        required: whether it has no default.
        longest: characters; None for any.
        error: what is wrong with the value.
    """

    name: str
    label: str
    kind: Kind
    help: str
    value: str
    default: str
    placeholder: str = ""
    options: tuple[tuple[str, str], ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    step: str = "any"
    required: bool = False
    longest: int | None = None
    error: str = ""

    @property
    def changed(self) -> bool:
        """Whether it differs from the default."""
        return self.value != self.default


@dataclass(frozen=True)
class Section:
    """Settings below one heading."""

    title: str
    fields: tuple[Field, ...]
    opened: bool

    @property
    def changed(self) -> int:
        """How many differ from their defaults."""
        return sum(one.changed for one in self.fields)


@dataclass(frozen=True)
class RequestForm:
    """A form of a model; ``problem`` is what concerns no single field."""

    sections: tuple[Section, ...]
    problem: str = ""

    @property
    def wrong(self) -> tuple[Field, ...]:
        """Fields whose values cannot be used."""
        return tuple(one for section in self.sections for one in section.fields if one.error)


def request_form(
    model: type[BaseModel],
    *,
    values: Mapping[str, Any] | None = None,
    errors: Mapping[str, str] | None = None,
    leave_out: Collection[str] = (),
    choices: Choices | None = None,
    settings: Settings | None = None,
) -> RequestForm:
    """A form with every field of a model, below the model's own headings; the first section is open.

    Args:
        model: of the request.
        values: that are filled in, of the fields' own types or as typed; defaults otherwise.
        errors: of `Refused`.
        leave_out: fields that this form does not ask for.
        choices: fields that are picked from a list which the model does not know.
        settings: of this installation, told where a field left empty means one of them.
    """
    given, wrong, picked = values or {}, errors or {}, choices or {}
    sections: list[Section] = []
    for title, names in sections_of(model):
        fields = tuple(
            _field(name, model.model_fields[name], given, picked.get(name), settings, wrong.get(name, ""))
            for name in names
            if name not in leave_out and name not in NEVER_ASKED
        )
        if fields:
            sections.append(Section(title, fields, opened=not sections or any(one.error for one in fields)))
    shown = {one.name for section in sections for one in section.fields}
    aside = [said for name, said in wrong.items() if name not in shown]
    return RequestForm(tuple(sections), " ".join(aside))


def read_request(
    model: type[Model],
    given: MultiDict[str, str],
    *,
    leave_out: Collection[str] = (),
    choices: Choices | None = None,
    **fixed: Any,
) -> Model:
    """What was typed into a form, as the request it makes.

    Args:
        model: of the request.
        given: ``flask.request.form``; what the model does not know is passed over.
        leave_out: fields that the form does not ask for, whose defaults hold whatever is sent.
        choices: as they were offered; nothing else is taken.
        fixed: fields that the page decides.

    Raises:
        Refused: a value, or the combination of them, cannot be used.
    """
    values: dict[str, Any] = dict(fixed)
    typed: dict[str, Any] = dict(fixed)
    errors: dict[str, str] = {}
    for name, field in model.model_fields.items():
        if name in fixed or name in leave_out or name in NEVER_ASKED or name not in given:
            continue
        said = [one.strip() for one in given.getlist(name)]
        typed[name] = said[-1]
        if choices is not None and name in choices and said[-1] not in {value for value, _ in choices[name]}:
            errors[name] = "Choose one of the list."
            continue
        try:
            values |= _read(name, field, said)
        except ValueError as error:
            errors[name] = str(error)
    try:
        made = model.model_validate(values)
    except ValidationError as error:
        for one in error.errors(include_url=False):
            name = str(one["loc"][0]) if one["loc"] else ""
            errors.setdefault(name, _sentence(one["msg"]))
        raise Refused(errors, typed) from error
    if errors:
        raise Refused(errors, typed)
    return made


def changed_fields(request: BaseModel) -> list[tuple[str, str, str]]:
    """Label, value and default of each field of a request that differs from its default, in order."""
    return [
        (one.label, one.value or NOT_CHOSEN, one.default)
        for name, field in type(request).model_fields.items()
        if name not in NEVER_ASKED
        for one in [_field(name, field, request.model_dump(), None, None, "")]
        if one.changed
    ]


def label_of(name: str, field: FieldInfo | None = None) -> str:
    """``crop_margin`` → ``Crop margin``."""
    if field is not None and field.title:
        return field.title
    words = [WORDS.get(word, word) for word in name.removesuffix("_seconds").removesuffix("_bytes").split("_")]
    said = " ".join(words)
    return said[:1].upper() + said[1:]


def _field(
    name: str, field: FieldInfo, given: Mapping[str, Any], picked: Sequence[tuple[str, str]] | None,
    settings: Settings | None, error: str,
) -> Field:  # fmt: skip
    annotation, nullable = _inside(field.annotation)
    default = None if field.is_required() else field.get_default(call_default_factory=True)
    default = None if default is PydanticUndefined else default
    kind, options = _kind(annotation, nullable, field)
    installed = _installed(field, settings)
    if picked is not None:
        kind, options = "choice", tuple(picked)
    made = Field(
        name=name,
        label=label_of(name, field) + _unit(name),
        kind=kind,
        help=_help(field, installed),
        value=_switched(_text(given.get(name, default))) if kind == "switch" else _text(given.get(name, default)),
        default=_text(default),
        placeholder=installed,
        options=options,
        required=field.is_required(),
        longest=next((one.max_length for one in field.metadata if getattr(one, "max_length", None)), None),
        error=error,
    )
    if kind != "number":
        return made
    bounds = bounds_of(field)
    return replace(
        made,
        minimum=bounds.get("ge", bounds.get("gt")),
        maximum=bounds.get("le", bounds.get("lt")),
        step="1" if annotation is int else "any",
    )


def _inside(annotation: Any) -> tuple[Any, bool]:
    """A field's type without None, and whether it may be None."""
    if get_origin(annotation) in (Union, UnionType):
        rest = [one for one in get_args(annotation) if one is not NoneType]
        return rest[0], len(rest) < len(get_args(annotation))
    return annotation, False


def _kind(annotation: Any, nullable: bool, field: FieldInfo) -> tuple[Kind, tuple[tuple[str, str], ...]]:
    empty = (("", NOT_CHOSEN),) if nullable else ()
    if get_origin(annotation) is Literal:
        return "choice", (*empty, *((str(one), str(one).replace("_", " ")) for one in get_args(annotation)))
    if annotation is bool:
        return ("choice", (*empty, ("yes", "yes"), ("no", "no"))) if nullable else ("switch", ())
    if annotation in (int, float):
        return "number", ()
    if get_origin(annotation) is tuple:
        return "list", ()
    longest = max((getattr(one, "max_length", None) or 0 for one in field.metadata), default=0)
    return ("long text" if longest > LONG_TEXT else "text"), ()


def _help(field: FieldInfo, installed: str) -> str:
    said = field.description or ""
    if bounds := bounds_in_words(field):
        said += f" ({bounds})"
    if get_origin(_inside(field.annotation)[0]) is tuple:
        said = said.replace("; may be repeated.", ".").replace("; may be given several times.", ".") + " One a line."
    return f"{said} Here: {installed}." if installed else said


def _unit(name: str) -> str:
    return ", seconds" if name.endswith("_seconds") else ", bytes" if name.endswith("_bytes") else ""


def _installed(field: FieldInfo, settings: Settings | None) -> str:
    """The installation's value, of a field whose help says ``Default: TATOR_ENCODER.``."""
    named = re.search(r"Default: (?:the project's, else )?([A-Z0-9_]{4,})\.", field.description or "")
    if settings is None or named is None:
        return ""
    name = named[1].removeprefix("TATOR_").lower()
    return _text(getattr(settings, name, None))


def _text(value: Any) -> str:
    """A value as it stands in an input."""
    if value is None or value is False:
        return ""
    if value is True:
        return "yes"
    if isinstance(value, float):
        return format(Decimal(repr(value)).normalize(), "f")
    if isinstance(value, (tuple, list)):
        return "\n".join(_text(one) for one in value)
    return str(value)


def _switched(text: str) -> str:
    return "yes" if text in YES else ""


def _read(name: str, field: FieldInfo, said: Sequence[str]) -> dict[str, Any]:
    """A field's value as the model takes it; nothing where its default is meant.

    Raises:
        ValueError: in a sentence.
    """
    annotation, nullable = _inside(field.annotation)
    text = said[-1]
    if get_origin(annotation) is tuple:
        lines = [line.strip() for one in said for line in one.splitlines()]
        return {name: tuple(line for line in lines if line)}
    if annotation is bool:
        return {name: None if nullable and not text else text in YES}
    if not text:
        return {name: None} if nullable else {} if annotation is not str or field.is_required() else {name: ""}
    if annotation is Path:
        path = Path(text).expanduser()
        if not path.is_absolute():
            raise ValueError("Give the whole path on the backend's machine, such as /data/cars.")
        return {name: path}
    return {name: text}


def _sentence(said: str) -> str:
    """Pydantic's message, with options of the command line named as the form names them."""
    said = (
        said.removeprefix("Value error, ")
        .replace("Input should be", "This must be")
        .replace("Field required", "This must be filled in")
    )
    said = re.sub(r"--([a-z][a-z0-9-]*)(?: (?:[A-Z]+)\b)?", lambda found: label_of(found[1].replace("-", "_")), said)
    said = said[:1].upper() + said[1:]
    return said if said.endswith((".", "!", "?")) else f"{said}."
