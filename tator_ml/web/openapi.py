"""The description of the control API in OpenAPI 3.1, made from its routes and pydantic models.

pydantic writes JSON Schema 2020-12, which is what OpenAPI 3.1 takes, so a route needs to name its models only.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from flask import Flask
from pydantic import TypeAdapter

from tator_ml.web.models import Problem

PREFIX = "/tator/api/"
VERSION = "1"

View = TypeVar("View", bound=Callable[..., Any])


@dataclass(frozen=True)
class Described:
    """What the document says of a route.

    Attributes:
        answer: type of what comes back.
        body: type of what is sent; None where nothing is.
        parameters: description of each part of the path and query, by name.
    """

    answer: Any
    body: Any = None
    parameters: dict[str, str] | None = None


def describe(answer: Any, body: Any = None, **parameters: str) -> Callable[[View], View]:
    """Say what a route takes and gives; its docstring says the rest."""

    def decorate(view: View) -> View:
        view.described = Described(answer, body, parameters)  # type: ignore[attr-defined]
        return view

    return decorate


def document(app: Flask) -> dict[str, Any]:
    """The whole document.

    Raises:
        ValueError: a route of the control API is not described.
    """
    models: dict[str, Any] = {}
    paths: dict[str, dict[str, Any]] = {}
    for rule in sorted(app.url_map.iter_rules(), key=lambda rule: rule.rule):
        if not rule.rule.startswith(PREFIX):
            continue
        view = app.view_functions[rule.endpoint]
        about = getattr(view, "described", None)
        if about is None:
            raise ValueError(f"the route {rule.rule} is not described")
        for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
            path = re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule)
            paths.setdefault(path, {})[method.lower()] = _operation(rule.endpoint, view, about, rule, models)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Tator control API",
            "version": VERSION,
            "description": "What commands and pages ask the backend about itself, and tell it.",
        },
        "paths": paths,
        "components": {"schemas": models, "securitySchemes": {"password": {"type": "http", "scheme": "basic"}}},
        "security": [{"password": []}, {}],  # only where TATOR_PASSWORD is set
    }


def _operation(name: str, view: Any, about: Described, rule: Any, models: dict[str, Any]) -> dict[str, Any]:
    summary, _, rest = (inspect.getdoc(view) or "").partition("\n")
    problem = {"description": "A sentence that says what to do.", "content": _json(Problem, models)}
    made: dict[str, Any] = {
        "operationId": name.rpartition(".")[2],
        "summary": summary,
        "responses": {
            "200": {"description": "Done.", "content": _json(about.answer, models)},
            "4XX": problem,
            "5XX": problem,
        },
    }
    if rest.strip():
        made["description"] = rest.strip()
    parameters = []
    for one, said in (about.parameters or {}).items():
        in_path = one in rule.arguments
        number = in_path and f"<int:{one}>" in rule.rule
        parameters.append(
            {
                "name": one,
                "in": "path" if in_path else "query",
                "required": in_path,
                "description": said,
                "schema": {"type": "integer" if number else "string"},
            }
        )
    if parameters:
        made["parameters"] = parameters
    if about.body is not None:
        made["requestBody"] = {"required": True, "content": _json(about.body, models)}
    return made


def _json(model: Any, models: dict[str, Any]) -> dict[str, Any]:
    """A body of a type, whose parts go to the document's components."""
    schema = TypeAdapter(model).json_schema(ref_template="#/components/schemas/{model}")
    models.update(schema.pop("$defs", {}))
    name = getattr(model, "__name__", "")
    if schema.get("type") == "object" and "properties" in schema and name.isidentifier():
        models[name] = schema
        schema = {"$ref": f"#/components/schemas/{name}"}
    return {"application/json": {"schema": schema}}
