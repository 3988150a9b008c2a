"""Command-line options made from the models of requests, so that a setting is described once.

A verb takes the request itself; its options, their help, defaults, choices and bounds are the model's::

    @group.command("clip", context_settings=EITHER_SPELLING)
    @with_request(HeadTraining, also={"project": ["-p"], "tolerance": ["tol"]})
    def clip(request: HeadTraining, home: Home = None) -> None:
        ...
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import typer
from pydantic import ValidationError
from pydantic.fields import FieldInfo
from rich.markup import escape

from tator_sdk.request_fields import bounds_in_words, sections_of
from tator_sdk.requests import JobRequest

EITHER_SPELLING = {"token_normalize_func": lambda token: token.replace("_", "-")}
"""Context settings of a verb, under which ``--images_path`` and ``--images-path`` are the same."""

Verb = Callable[..., None]


def with_request(
    model: type[JobRequest],
    *,
    also: Mapping[str, Sequence[str]] | None = None,
) -> Callable[[Verb], Verb]:
    """Give a verb the options of a request model under the model's headings, and hand it the request that they make.

    Args:
        model: of the request.
        also: further names of a field's option: words without their dashes, or whole ones such as ``-p``.

    Returns:
        A decorator for a function whose parameter ``request`` takes the request; its other parameters stay options
        of their own.
    """

    def decorate(verb: Verb) -> Verb:
        own = inspect.signature(verb, eval_str=True).parameters
        parameters = [*_options(model, also or {})]
        parameters += [one.replace(kind=one.KEYWORD_ONLY) for name, one in own.items() if name != "request"]

        @functools.wraps(verb)
        def called(**given: Any) -> None:
            fields = {name: given.pop(name) for name in model.model_fields}
            verb(request=_request(model, fields), **given)

        called.__doc__ = _unwrapped(verb.__doc__ or "")
        called.__annotations__ = {one.name: one.annotation for one in parameters}
        called.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        return called

    return decorate


def option_name(field: str) -> str:
    """How a field is written on the command line: ``images_path`` → ``--images-path``."""
    return f"--{field.replace('_', '-')}"


def _unwrapped(text: str) -> str:
    """Help whose paragraphs are one line each: the terminal wraps them where it ends, not where the source does."""
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in inspect.cleandoc(text).split("\n\n"))


def _options(model: type[JobRequest], also: Mapping[str, Sequence[str]]) -> list[inspect.Parameter]:
    unknown = (set(also) | set(model.SECTIONS)) - set(model.model_fields)
    if unknown:
        raise ValueError(f"{model.__name__} has no field {min(unknown)}")
    made, headings = [], {name: title for title, names in sections_of(model) for name in names}
    for name, field in model.model_fields.items():
        names = [option_name(name), *(word if word[0] == "-" else f"--{word}" for word in also.get(name, ()))]
        if field.annotation is bool:
            names = [f"{one}/--no-{one.removeprefix('--')}" for one in names]
        about = typer.Option(*names, help=_help(field), rich_help_panel=headings[name] or None)
        made.append(
            inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                default=inspect.Parameter.empty
                if field.is_required()
                else field.get_default(call_default_factory=True),
                annotation=Annotated[_given_as(field.annotation), about],
            )
        )
    return made


def _given_as(annotation: Any) -> Any:
    """The type of an option: one that may be repeated for a tuple of any length, which typer does not know."""
    inside = get_args(annotation)
    return list[inside[0]] if get_origin(annotation) is tuple and inside[1:] == (...,) else annotation  # type: ignore[valid-type]


def _help(field: FieldInfo) -> str:
    bounds = bounds_in_words(field)
    return escape(field.description or "") + (f" ({bounds})" if bounds else "")


def _request(model: type[JobRequest], given: Mapping[str, Any]) -> JobRequest:
    """The request; what the model refuses is a usage error that names the option.

    Raises:
        typer.BadParameter: a value, or the combination of them, cannot be used.
    """
    # A request may travel to a worker, and is kept in reports: a path must mean the same everywhere.
    values = {
        name: value.expanduser().absolute() if isinstance(value, Path) else value for name, value in given.items()
    }
    try:
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        hint = option_name(str(first["loc"][0])) if first["loc"] else None
        raise typer.BadParameter(first["msg"].removeprefix("Value error, "), param_hint=hint) from error
