"""Pages about models: a project's, one version, two of them, and the list."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from flask import Blueprint, flash, redirect, render_template, request, url_for
from werkzeug.exceptions import NotFound
from werkzeug.wrappers import Response as AnyResponse

from tator_ml.engine.segmenters import names
from tator_ml.learning.confusion import confusion_of
from tator_ml.projects import ASSISTS, OUTPUTS, Activation, ProjectChoices, Role
from tator_ml.reports import part, rows
from tator_ml.runs import BASE
from tator_ml.web.access import visitor
from tator_ml.web.dashboard.models.catalogue import Catalogue
from tator_ml.web.dashboard.models.comparison import compare, per_class
from tator_ml.web.dashboard.models.versions import KINDS, ROLES, TITLES, Version, facts_of_head
from tator_ml.web.dashboard.page import Dashboard, seen_by

PER_PAGE = 100
WHY = {
    "gate": "better on the same held-out pictures",
    "person": "chosen by a person",
    "rollback": "gone back",
    "asked for": "asked for when it was trained",
}


@dataclass(frozen=True)
class Station:
    """One role in a project: what answers, and how it came to.

    Attributes:
        role: ``head``, ``qwen`` or ``sam3``.
        version: that answers.
        earlier: whether there is one to go back to.
        history: changes, the newest first.
    """

    role: Role
    version: Version
    earlier: bool
    history: list[Activation] = field(hash=False)


def add(routes: Blueprint, dashboard: Dashboard, catalogue: Catalogue) -> None:
    """Routes that change nothing."""

    @routes.get("/models")
    def models() -> str:
        who, project = visitor(), dashboard.chosen_project()
        used = catalogue.where_active()
        versions = [one for role in ROLES for one in catalogue.versions(role) if catalogue.seen_by(who, one, used)]
        if role := _role(request.args.get("role")):
            versions = [one for one in versions if one.role == role]
        if project is not None:
            versions = [one for one in versions if one.project == project or project in used.get(one.key, ())]
        versions.sort(key=lambda one: -(one.created or 0))
        return render_template(
            "dashboard/models/page.html",
            project=project,
            projects=known_projects(dashboard, catalogue),
            role=role,
            titles=TITLES,
            versions=versions[:PER_PAGE],
            more=max(0, len(versions) - PER_PAGE),
            used=used,
            figures={role: catalogue.figures(role) for role in ROLES},
            stations=[_station(catalogue, role, project) for role in ROLES] if project is not None else [],
            choices=catalogue.projects.get(project),
            segmenters=names(),
            outputs=OUTPUTS,
            assists=assists_said(catalogue.projects.get(project)),
            why=WHY,
            base=BASE,
        )

    @routes.get("/models/<role>/<name>")
    def models_one(role: str, name: str) -> str:
        version = catalogue.require(visitor(), catalogue.version(checked(role), name))
        facts = {**version.facts, **(facts_of_head(version) if version.role == "head" else {})}
        return render_template(
            "dashboard/models/one.html",
            version=version,
            title=TITLES[version.role],
            kind=KINDS[version.role],
            facts={name: value for name, value in facts.items() if value not in (None, "", [])},
            names=catalogue.figures(version.role),
            table=class_table(version),
            confusion=confusion_of(version.metrics) if version.role == "head" else None,
            used=seen_by(visitor(), catalogue.where_active().get(version.key, ())),
            projects=known_projects(dashboard, catalogue),
            others=_others(catalogue, version),
            base=BASE,
            mine=visitor().may_see(version.project),
        )

    @routes.get("/models/compare")
    def models_compare() -> AnyResponse | str:
        keys = request.args.getlist("version")
        if len(set(keys)) != 2:
            flash("Choose two versions to compare.", "error")
            return redirect(url_for("dashboard.models", project=request.args.get("project") or None))
        first, second = (catalogue.require(visitor(), _named(catalogue, key)) for key in dict.fromkeys(keys))
        if first.role != second.role:
            flash(f"A {TITLES[first.role]} and a {TITLES[second.role]} have no figures in common.", "error")
            return redirect(url_for("dashboard.models", project=request.args.get("project") or None))
        if (first.created or 0) > (second.created or 0):
            first, second = second, first
        return render_template(
            "dashboard/models/compare.html",
            first=first,
            second=second,
            title=TITLES[first.role],
            found=compare(first, second, catalogue.figures(first.role)),
        )


def known_projects(dashboard: Dashboard, catalogue: Catalogue) -> list[int]:
    """Projects that the visitor may see and of which anything is known."""
    who = visitor()
    if who.projects is not None:
        return sorted(who.projects)
    return seen_by(who, {*dashboard.titles.all(), *catalogue.projects.known()})


def checked(role: str) -> Role:
    """A role in an address.

    Raises:
        NotFound: there is no such role.
    """
    found = _role(role)
    if found is None:
        raise NotFound(f"There is no kind of model '{role}'.")
    return found


def class_table(version: Version) -> list[Mapping[str, Any]]:
    """For each class precision, recall, F1 and support of a head; AP of others, with the active model's beside it."""
    if version.role == "head":
        found = rows(part(version.metrics, "held_out"), "per_class")
        return [one for one in found if isinstance(one, Mapping)]
    theirs = part(version.gate, "active", "per_class")
    return [{"class": name, "ap": value, "before": theirs.get(name)} for name, value in per_class(version).items()]


def assists_said(choices: ProjectChoices) -> str:
    """A project's assists as the form's choice names them."""
    if choices.assists is None:
        return ""
    return ",".join(one for one in ASSISTS if one in choices.assists) or "none"


def _role(given: str | None) -> Role | None:
    return next((role for role in ROLES if role == given), None)


def _station(catalogue: Catalogue, role: Role, project: int) -> Station:
    return Station(
        role, catalogue.active(role, project), catalogue.earlier(role, project), catalogue.history(role, project)
    )


def _named(catalogue: Catalogue, key: str) -> Version:
    role, _, name = key.partition(":")
    return catalogue.version(checked(role), name)


def _others(catalogue: Catalogue, version: Version) -> list[Version]:
    """What a version can be compared with."""
    used = catalogue.where_active()
    return [
        one
        for one in catalogue.versions(version.role)
        if one.id != version.id and one.figures and catalogue.seen_by(visitor(), one, used)
    ]
