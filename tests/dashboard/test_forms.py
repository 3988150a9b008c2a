"""Forms made from models, and what is read back from them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest
from flask import Flask, render_template_string
from pydantic import Field, model_validator
from werkzeug.datastructures import MultiDict

from tator_ml.launch import JOB_KINDS
from tator_ml.web.dashboard import forms
from tator_ml.web.dashboard.forms import Refused, read_request, request_form
from tator_sdk.qwen_request import QwenTraining
from tator_sdk.requests import HeadTraining, JobRequest
from tator_sdk.settings import Settings

from .conftest import Site

MODELS = [
    one.model
    for one in JOB_KINDS
    if {name for name, field in one.model.model_fields.items() if field.is_required()} <= {"project"}
]


class Painting(JobRequest):
    """A request with all kinds of fields."""

    SECTIONS: ClassVar[Mapping[str, str]] = {"room": "What", "coats": "How"}

    room: str = Field(description="Which <room>.")
    plan: Path | None = Field(None, description="Drawing.")
    coats: int = Field(2, ge=1, le=5, description="How often.")
    share: float = Field(0.5, gt=0, lt=1, description="How much.")
    least: float | None = Field(None, ge=0, description="At least.")
    brush: Literal["broad", "very_fine"] | None = Field(None, description="With what.")
    glossy: bool = Field(True, description="Shine.")
    primed: bool | None = Field(None, description="First coat.")
    colours: tuple[str, ...] = Field(("white",), description="Which.")
    encoder: str | None = Field(None, description="Eyes. Default: TATOR_ENCODER.")
    story: str = Field("", max_length=2000, description="Why.")

    @model_validator(mode="after")
    def _dry(self) -> Painting:
        if self.glossy and self.coats > 4:
            raise ValueError("give fewer --coats N or no --glossy")
        return self


def typed(**values: Any) -> MultiDict[str, str]:
    return MultiDict(
        [(name, one) for name, value in values.items() for one in (value if isinstance(value, list) else [value])]
    )


def fields(form: forms.RequestForm) -> dict[str, forms.Field]:
    return {one.name: one for section in form.sections for one in section.fields}


def test_each_kind_of_field_has_its_input() -> None:
    form = request_form(Painting, settings=Settings(encoder="open_clip:ViT-B-32"))
    assert [(one.title, one.opened, one.changed) for one in form.sections] == [("What", True, 0), ("How", False, 0)]
    found = fields(form)
    assert {name: one.kind for name, one in found.items()} == {
        "room": "text", "plan": "text", "coats": "number", "share": "number", "least": "number", "brush": "choice",
        "glossy": "switch", "primed": "choice", "colours": "list", "encoder": "text", "story": "long text",
    }  # fmt: skip
    assert found["room"].required and not found["plan"].required
    assert (found["coats"].minimum, found["coats"].maximum, found["coats"].step) == (1, 5, "1")
    assert found["share"].step == "any" and found["share"].help == "How much. (above 0, below 1)"
    assert found["encoder"].placeholder == "open_clip:ViT-B-32" and found["encoder"].help.endswith(
        "Here: open_clip:ViT-B-32."
    )
    assert found["brush"].options == (("", forms.NOT_CHOSEN), ("broad", "broad"), ("very_fine", "very fine"))


def test_what_is_typed_makes_the_request() -> None:
    given = typed(
        room=" bath ", plan="/tmp/x.png", coats="3", share="", least="", brush="very_fine", glossy=["no"], primed="no",
        colours="red\n\n blue ", encoder="", story="", csrf_token="x",
    )  # fmt: skip
    made = read_request(Painting, given)
    assert made == Painting(
        room="bath",
        plan=Path("/tmp/x.png"),
        coats=3,
        brush="very_fine",
        glossy=False,
        primed=False,
        colours=("red", "blue"),
    )  # fmt: skip
    assert read_request(Painting, typed(room="x", glossy=["no", "yes"])) == Painting(room="x")
    assert read_request(Painting, typed(room="x", colours="")).colours == ()


def test_what_cannot_be_used_is_told_beside_its_field() -> None:
    with pytest.raises(Refused) as refused:
        read_request(Painting, typed(room="", coats="9", share="much", plan="x.png", glossy="yes"))
    errors = refused.value.errors
    assert errors["room"] == "This must be filled in."
    assert errors["coats"] == "This must be less than or equal to 5."
    assert errors["plan"].startswith("Give the whole path") and "number" in errors["share"]
    form = request_form(Painting, values=refused.value.values, errors=errors)
    assert fields(form)["share"].value == "much" and [one.name for one in form.wrong] == [
        "room",
        "plan",
        "coats",
        "share",
    ]
    assert all(section.opened for section in form.sections)
    with pytest.raises(Refused) as refused:
        read_request(Painting, typed(room="x", coats="5", glossy="yes"))
    assert refused.value.errors == {"": "Give fewer Coats or no Glossy."}
    assert request_form(Painting, errors=refused.value.errors).problem == "Give fewer Coats or no Glossy."


@pytest.mark.parametrize("said", ["nan", "inf", "1e400"])
def test_a_number_is_a_number(said: str) -> None:
    with pytest.raises(Refused):
        made = read_request(Painting, typed(room="x", share=said))
        assert math.isfinite(made.share)


def test_what_the_form_does_not_ask_for_is_not_read() -> None:
    made = read_request(
        Painting, typed(room="x", plan="/etc/passwd", encoder="/etc"), leave_out={"plan"}, encoder="starter"
    )
    assert made.plan is None and made.encoder == "starter"
    offered = {"encoder": [("", "the default"), ("starter", "starter")]}
    assert read_request(Painting, typed(room="x", encoder="starter"), choices=offered).encoder == "starter"
    with pytest.raises(Refused, match="Choose one of the list"):
        read_request(Painting, typed(room="x", encoder="/etc"), choices=offered)


@pytest.mark.parametrize("model", MODELS, ids=[one.__name__ for one in MODELS])
def test_a_form_sent_as_it_is_makes_the_defaults(model: type[JobRequest]) -> None:
    """So nothing is lost on the way through any request's form."""
    source = {"project": 3}
    form = request_form(model, values=source)
    sent: MultiDict[str, str] = MultiDict()
    for one in fields(form).values():
        assert one.help and one.label
        if one.kind == "switch":
            sent.add(one.name, "no")
        if one.kind != "switch" or one.value:
            sent.add(one.name, one.value)
    assert read_request(model, sent) == model.model_validate(source)


def test_it_is_rendered_with_help_and_errors_that_are_escaped(site: Site) -> None:
    app: Flask = site.client.application
    page = "{% from 'dashboard/form_parts.html' import request_fields %}{{ request_fields(form) }}"
    form = request_form(Painting, values={"room": '"><script>'}, errors={"coats": "Not <b>that</b>."})
    with app.test_request_context("/tator/now"):
        app.preprocess_request()
        text = render_template_string(page, form=form)
    assert "<script>" not in text and "Not &lt;b&gt;that" in text and "Which &lt;room&gt;." in text
    assert 'aria-describedby="field-coats-wrong field-coats-help" aria-invalid="true"' in text
    assert 'href="#field-coats"' in text and 'role="alert"' in text
    assert 'type="number" id="field-share" name="share" value="0.5" step="any" min="0" max="1"' in text


def test_what_differs_from_the_defaults() -> None:
    request = HeadTraining(project=3, solver="saga", sync=False)
    assert forms.changed_fields(request) == [
        ("Project", "3", ""), ("Sync", forms.NOT_CHOSEN, "yes"), ("Solver", "saga", "lbfgs")
    ]  # fmt: skip
    assert forms.changed_fields(QwenTraining(project=3, learning_rate=8e-5))[1] == (
        "Learning rate",
        "0.00008",
        "0.0002",
    )
