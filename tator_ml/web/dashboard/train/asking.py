"""The form of one kind of training, for one visitor, and the request that it makes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from werkzeug.datastructures import MultiDict

from tator_ml.launch import JOB_KINDS
from tator_ml.web.access import Visitor
from tator_ml.web.dashboard.forms import Choices, Refused, RequestForm, read_request, request_form
from tator_ml.web.dashboard.models.catalogue import Catalogue
from tator_ml.web.dashboard.models.versions import KINDS
from tator_ml.web.dashboard.train.sources import Source
from tator_sdk.requests import JobRequest
from tator_sdk.settings import Settings

TITLES: Mapping[str, str] = {"clip": "Class head", "qwen": "Qwen", "sam3": "SAM 3"}
ABOUT: Mapping[str, str] = {
    "clip": "Says the class of a box: a calibrated logistic regression on embeddings of labelled boxes. Seconds to "
    "minutes, on a CPU too.",
    "qwen": "Finds what is asked for in words: a LoRA adapter over Qwen-VL, or all of its weights. Hours on a GPU.",
    "sam3": "Finds every object that a phrase names: a tuned SAM 3, boxes alone or masks too. Hours on a GPU.",
}
ROLES = {kind: role for role, kind in KINDS.items()}
SOURCE = frozenset({"project", "dataset", "images_path"})
OF_THE_MACHINE = frozenset({"images", "labels_path", "labelmap_path", "device"})
"""Paths and devices: an administrator's."""
ELSEWHERE = "path"
"""Source that is a path typed by an administrator."""


@dataclass(frozen=True)
class Asking:
    """A kind of training and who asks for it.

    Attributes:
        kind: ``clip``, ``qwen`` or ``sam3``.
        who: asks.
        sources: that they may learn from.
        choices: fields that they pick from a list.
    """

    kind: str
    who: Visitor
    sources: list[Source]
    choices: Choices = field(hash=False)

    @property
    def model(self) -> type[JobRequest]:
        """Of the request."""
        return next(one.model for one in JOB_KINDS if one.kind == self.kind)

    @property
    def _left_out(self) -> frozenset[str]:
        return SOURCE if self.who.administrator else SOURCE | OF_THE_MACHINE

    def form(
        self, settings: Settings, values: Mapping[str, Any] | None = None, errors: Mapping[str, str] | None = None
    ) -> RequestForm:
        """The form without its source, which the page asks for itself."""
        return request_form(
            self.model, values=values, errors=errors, leave_out=self._left_out, choices=self.choices, settings=settings
        )

    def read(self, given: MultiDict[str, str]) -> JobRequest:
        """The request of a form.

        Raises:
            Refused: something in it cannot be used.
        """
        source = self._source(given)
        return read_request(
            self.model, given, leave_out=self._left_out, choices=self.choices, **source.fixed(self.kind)
        )

    def key_of(self, values: Mapping[str, Any]) -> str:
        """The source that a request names, as the form has it."""
        if values.get("project"):
            return f"project:{values['project']}"
        path = values.get("images_path") or values.get("dataset")
        return next((one.key for one in self.sources if path and str(one.path) == str(path)), ELSEWHERE if path else "")

    def _source(self, given: MultiDict[str, str]) -> Source:
        key = given.get("source", "")
        if key == ELSEWHERE and self.who.administrator:
            path = Path(given.get("source_path", "").strip() or ".").expanduser()
            if not path.is_absolute():
                raise Refused({"source": "Give the whole path on the backend's machine."}, given.to_dict())
            return Source(ELSEWHERE, str(path), path=path)
        found = next((one for one in self.sources if one.key == key), None)
        if found is None:
            raise Refused({"source": "Choose what is to be learned from."}, given.to_dict())
        return found


def choices_of(kind: str, who: Visitor, catalogue: Catalogue, settings: Settings) -> dict[str, list[tuple[str, str]]]:
    """Fields that a visitor picks from a list: models by name, since a path of this machine is an administrator's."""
    if who.administrator:
        return {}
    if kind == "clip":
        names = {settings.encoder, "starter"}
        return {"encoder": [("", f"the default: {settings.encoder}"), *((one, one) for one in sorted(names))]}
    used = catalogue.where_active()
    known = [one for one in catalogue.versions(ROLES[kind]) if catalogue.seen_by(who, one, used)]
    usable = [one for one in known if kind == "sam3" or one.facts.get("Method") == "whole"]
    base = catalogue.default(ROLES[kind])
    return {"base": [("", f"the default: {base.label}"), *((one.id, one.id) for one in usable)]}
