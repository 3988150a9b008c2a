"""What the backend is doing at this moment."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from flask import Blueprint, Response, flash, make_response, redirect, render_template, request, url_for
from werkzeug.exceptions import BadRequest, NotFound
from werkzeug.wrappers import Response as AnyResponse

from tator_ml.images.thumbnails import Thumbnails
from tator_ml.learning.stores import image_store
from tator_ml.web.access import visitor
from tator_ml.web.dashboard.now.answers import Answers
from tator_ml.web.dashboard.now.flights import flights, lanes
from tator_ml.web.dashboard.now.memory import MEGABYTE, Budget, memories
from tator_ml.web.dashboard.now.warm import may_see_picture, warm_pictures
from tator_ml.web.dashboard.page import Dashboard, Page
from tator_ml.web.dashboard.words import as_bytes

PAGE = Page("now", "Now")
PICTURE_SECONDS = 86_400  # a content hash is always the same picture, but whoever may see it can change


def add(routes: Blueprint, dashboard: Dashboard) -> None:
    """Routes of the page."""
    services, watch = dashboard.services, dashboard.watch
    thumbnails = Thumbnails(image_store(dashboard.settings), dashboard.settings.image_max_pixels)
    answers = Answers(services.metrics.last_hour)

    def parts() -> Mapping[str, str]:
        """What changes by itself, as far as the visitor may see it."""
        who, status = visitor(), watch.status
        problems = {one: problem for one, problem in services.notices.problems().items() if who.may_see(one)}
        makers: dict[str, Callable[[], dict[str, object]]] = {
            "state": lambda: {"memories": memories(status)},
            "flights": lambda: {"lanes": lanes(status), "flights": flights(status, who)},
            "warm": lambda: {"warm": warm_pictures(status, services.uses, who), "budget": Budget.of(status)},
            "answers": lambda: {"answers": answers.table()},
            "minutes": lambda: {"minutes": answers.plot()},
            "problems": lambda: {"problems": problems},
        }
        return {
            name: render_template(f"dashboard/now/{name}.html", status=status, **make())
            for name, make in makers.items()
        }

    @routes.get("/now")
    def now() -> str:
        return render_template("dashboard/now/page.html", parts=parts(), budget=Budget.of(watch.status))

    @routes.get("/now/live")
    def now_live() -> Response:
        return dashboard.live.stream(f"now:{visitor().sight}", parts)

    @routes.get("/now/picture/<image>")
    def now_picture(image: str) -> Response:
        small = thumbnails.get(image) if may_see_picture(image, services.uses, visitor()) else None
        if small is None:
            raise NotFound("There is no such picture among those that you may see.")
        answer = make_response(small)
        answer.mimetype = "image/jpeg"
        answer.headers["Cache-Control"] = f"private, max-age={PICTURE_SECONDS}, immutable"
        return answer

    @routes.post("/now/budget")
    def now_budget() -> AnyResponse:
        visitor().require_administrator()
        given = request.form.get("budget", "")
        if not (given.isascii() and given.isdigit() and 1 <= int(given) <= 10**9):
            raise BadRequest("The budget is a number of megabytes.")
        budget_bytes = int(given) * MEGABYTE
        services.engine.set_budget(budget_bytes)
        watch.look()
        said = f"Warm pictures may take {as_bytes(budget_bytes)} until the engine is started again"
        flash(f"{said}; TATOR_WARM_BYTES sets it for good.", "good")
        return redirect(url_for("dashboard.now"))
