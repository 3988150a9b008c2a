"""Who labels what in a project, and work packages that keep people apart."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from flask import Blueprint, Response, flash, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import NotFound

from tator_ml.web.access import visitor
from tator_ml.web.dashboard.page import Dashboard, Page, seen_by
from tator_ml.web.dashboard.recent import Recent
from tator_sdk.activity import Activity, days_until, look
from tator_sdk.bulk import open_bulk
from tator_sdk.errors import TatorError
from tator_sdk.handing_out import HandingOut, Standing
from tator_sdk.packages import LONGEST_NAME, Share
from tator_sdk.settings import Settings

PAGE = Page("team", "Team")

FRESH_SECONDS = 8.0
PATIENCE_SECONDS = 0.1
PRESENT_MINUTES = 15.0
MOST_PEOPLE = 200
_SHARE = re.compile(r"(?P<person>.+?)\s*[:;,\t]\s*(?P<weight>\d{1,6})")


@dataclass(frozen=True)
class Seen:
    """What Label Studio said about a project's people.

    Attributes:
        activity: None where it did not answer.
        packages: how far each is.
        said: why it did not answer.
        at: seconds since the epoch.
    """

    activity: Activity | None
    packages: Sequence[Standing] = ()
    said: str = ""
    at: float = 0.0

    @property
    def days(self) -> list[str]:
        """The dates that are counted."""
        return days_until(self.at)

    def present(self, at: float) -> bool:
        """Whether somebody who did something then is there now."""
        return self.at - at <= 60 * PRESENT_MINUTES


def add(routes: Blueprint, dashboard: Dashboard) -> None:
    """Routes of the page."""
    settings = dashboard.settings
    recent: Recent[int, Seen] = Recent(lambda project: _ask(settings, project), FRESH_SECONDS)

    def parts(project: int, seen: Seen | None) -> dict[str, str]:
        shown = {"seen": seen, "project": project, "studio": settings.label_studio_url}
        return {name: render_template(f"dashboard/team/{name}.html", **shown) for name in ("activity", "packages")}

    def chosen() -> int:
        number = dashboard.chosen_project()
        if number is None:
            raise NotFound("Choose a project first.")
        return number

    @routes.get("/team")
    def team() -> str:
        projects = seen_by(visitor(), dashboard.titles.all())
        number = dashboard.chosen_project()
        if number is None and len(projects) == 1:
            number = projects[0]
        seen = None if number is None else recent.get(number, PATIENCE_SECONDS)
        shown = {} if number is None else parts(number, seen)
        return render_template(
            "dashboard/team/page.html", projects=projects, project=number, people=_people(seen), **shown
        )

    @routes.get("/team/live")
    def team_live() -> Response:
        number = chosen()
        return dashboard.live.stream(f"team:{number}", lambda: parts(number, recent.get(number)))

    @routes.post("/team/plan")
    def team_plan() -> ResponseReturnValue:
        number = chosen()
        shares, most = _shares(request.form.get("people", "")), _most(request.form.get("most", ""))
        plan = HandingOut(settings, number).plan(shares, most)
        return render_template("dashboard/team/plan.html", project=number, plan=plan, form=request.form)

    @routes.post("/team/hand-out")
    def team_hand_out() -> ResponseReturnValue:
        number = chosen()
        shares, most = _shares(request.form.get("people", "")), _most(request.form.get("most", ""))
        try:
            made = HandingOut(settings, number).hand_out(shares, most, request.form.get("signature", ""))
        finally:
            recent.forget(number)
        flash(f"{len(made)} work packages are handed out, with {sum(len(one.tasks) for one in made)} tasks.", "good")
        return redirect(url_for("dashboard.team", project=number), 303)

    @routes.post("/team/take-back")
    def team_take_back() -> ResponseReturnValue:
        number = chosen()
        try:
            taken = HandingOut(settings, number).take_back(request.form.get("packages", "").split())
        finally:
            recent.forget(number)
        flash(f"{len(taken)} work packages are taken back; what was labelled in them stays.", "good")
        return redirect(url_for("dashboard.team", project=number), 303)


def _ask(settings: Settings, project: int) -> Seen:
    try:
        packages = HandingOut(settings, project).standing()
        now = time.time()
        with open_bulk(settings) as api:
            return Seen(look(api, project, now, PRESENT_MINUTES), packages, at=now)
    except TatorError as error:
        return Seen(None, said=str(error), at=time.time())


def _people(seen: Seen | None) -> Sequence[str]:
    """Who is proposed for packages: whoever labelled here lately, or has one."""
    if seen is None or seen.activity is None:
        return ()
    active: Mapping[str, object] = seen.activity.days
    return sorted({*active, *(one.person for one in seen.activity.seats), *(s.package.person for s in seen.packages)})


def _shares(text: str) -> list[Share]:
    """Shares as they are typed: a person a line, with a weight behind a colon where it is not 1.

    Raises:
        TatorError: there is nobody, or a name is too long.
    """
    shares = []
    for line in filter(None, map(str.strip, text.splitlines())):
        found = _SHARE.fullmatch(line)
        person = found["person"] if found else line
        if len(person) > LONGEST_NAME:
            raise TatorError(f"A name is at most {LONGEST_NAME} letters long; write one person a line.")
        shares.append(Share(person, int(found["weight"]) if found else 1))
    if not shares or len(shares) > MOST_PEOPLE:
        raise TatorError(f"Name between one and {MOST_PEOPLE} people, one a line.")
    return shares


def _most(text: str) -> int | None:
    if not text.strip():
        return None
    if not (text.strip().isascii() and text.strip().isdigit() and 0 < int(text) < 10**9):
        raise TatorError("The number of tasks is a whole number above 0, or empty for all.")
    return int(text)
