"""The Now page: what is in flight and whose it is, warm pictures, memory, the last hour."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace

import pytest
from flask import g
from PIL import Image

from tator_ml.engine.messages import EngineStatus, Flight, WarmStatus
from tator_ml.last_hour import MOST_IN_MINUTE, LastHour, Latency
from tator_ml.learning.stores import image_store
from tator_ml.web.access import Visitor
from tator_ml.web.dashboard.now.answers import _plotted
from tator_ml.web.dashboard.now.flights import whose

from .conftest import Site


@pytest.fixture
def guest(site: Site) -> Iterator[Site]:
    """The site, visited by somebody who may see project 1 alone."""

    def arrive() -> None:
        g.visitor = Visitor("ann@example.org", frozenset({1}))

    site.client.application.before_request_funcs.setdefault(None, []).append(arrive)
    yield site


def fly(site: Site, *flights: Flight) -> None:
    site.engine.now = replace(site.engine.now, flights=flights)
    site.client.application.extensions["tator_watch"].look()


@pytest.mark.parametrize(
    ("task", "meant"),
    [("3/17", (3, 17)), ("3/17/words", (3, 17)), ("3/" + "7" * 64, (3, None)), ("", (None, None)), ("x", (None, None))],
)
def test_whose_a_request_is(task: str, meant: tuple[int | None, int | None]) -> None:
    assert whose(Flight("click", "running", 0.0, task=task)) == meant


FLIGHTS = (
    Flight("click", "running", 0.25, "1 box", "a" * 64, "sam2-tiny", "1/17"),
    Flight("preload", "waiting", 75.0, "encoding ahead", "b" * 64, "", "2/" + "b" * 64),
)


def test_everything_in_flight_is_shown_with_its_age(site: Site) -> None:
    fly(site, *FLIGHTS)
    page = site.page("/tator/now")
    for said in ("1 box", "project 1, task 17", "sam2-tiny", "250 ms", "encoding ahead", "project 2", "1 min 15 s"):
        assert said in page, said


def test_what_is_another_project_s_is_not_told(guest: Site) -> None:
    fly(guest, *FLIGHTS)
    page = guest.page("/tator/now")
    assert "project 1, task 17" in page and "another project" in page
    assert "project 2" not in page and "bbbbbbbb" not in page


def picture(site: Site, size_wh: tuple[int, int] = (800, 400)) -> str:
    """A picture that a camera took sideways."""
    file, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", size_wh, "orange").save(file, "JPEG", exif=exif)
    return image_store(site.settings).put(file.getvalue())


def test_a_thumbnail_is_small_and_upright_and_only_for_who_may_see_it(guest: Site) -> None:
    image = picture(guest)
    guest.engine.now = replace(guest.engine.now, warm=(WarmStatus(image, 3_000_000, "starter", True),))
    guest.client.application.extensions["tator_watch"].look()
    guest.services.uses.seen(image, 2, 5)
    assert image[:12] not in guest.page("/tator/now")
    guest.page(f"/tator/now/picture/{image}", 404)
    guest.services.uses.seen(image, 1, 4)
    assert "project 1, task 4" in guest.page("/tator/now") and "project 2" not in guest.page("/tator/now")
    answer = guest.client.get(f"/tator/now/picture/{image}")
    assert answer.mimetype == "image/jpeg" and "private" in answer.headers["Cache-Control"]
    small = Image.open(io.BytesIO(answer.data))
    assert small.size == (120, 240) and "exif" not in small.info


def test_a_picture_s_name_is_a_hash_and_nothing_else(site: Site) -> None:
    for name in ("secret", "%2e%2e%2fsecret", "a" * 63, "a" * 64):
        site.page(f"/tator/now/picture/{name}", 404)


def test_the_budget_is_the_administrator_s(site: Site) -> None:
    assert site.client.post("/tator/now/budget", data={"budget": "300"}).status_code == 302
    assert site.engine.now.budget_bytes == 300_000_000
    assert "Warm pictures may take 300 MB" in site.page("/tator/now")
    assert site.client.post("/tator/now/budget", data={"budget": "-1"}).status_code == 400


def test_a_guest_cannot_set_the_budget(guest: Site) -> None:
    assert 'name="budget"' not in guest.page("/tator/now")
    assert guest.client.post("/tator/now/budget", data={"budget": "300"}).status_code == 403


def test_percentiles_and_the_last_problem_of_each_project(site: Site) -> None:
    for milliseconds in range(1, 101):
        site.services.metrics.answered("boxes", "click", "answered", milliseconds / 1000)
    site.services.metrics.answered("boxes", "click", "busy", 50.0)
    site.services.notices.failed(1, "The picture <b>is</b> gone.")
    site.services.notices.failed(2, "Too slow.")
    site.services.notices.answered(2, "Star", True)
    page = site.page("/tator/now")
    assert "The picture &lt;b&gt;is&lt;/b&gt; gone." in page and "answered well since" in page
    for said in ("drawn boxes", ">100<", ">50 ms<", ">95 ms<", ">99 ms<", "minutes-clicks"):
        assert said in page, said


def test_the_last_hour_is_exact_bounded_and_forgets() -> None:
    now = [0.0]
    hour = LastHour(lambda: now[0])
    hour.add("click", "boxes", 9.0)
    now[0] = 3600.0  # the minute of the first answer is an hour ago
    for value in range(101):
        hour.add("click", "boxes", value / 100)
    (latency,) = hour.by_kind().values()
    assert (latency.count, round(latency.p50, 4), round(latency.p95, 4), round(latency.p99, 4)) == (
        101,
        0.5,
        0.95,
        0.99,
    )
    now[0] = 3660.0
    for value in range(10 * MOST_IN_MINUTE):
        hour.add("click", "points", value / (10 * MOST_IN_MINUTE))
    many = hour.by_kind()["click", "points"]
    assert many.count == 10 * MOST_IN_MINUTE and abs(many.p50 - 0.5) < 0.05
    assert list(hour.by_minute("click")) == [60, 61] and not hour.by_minute("batch")


def test_the_first_minute_stands_on_an_axis_of_minutes() -> None:
    one = {600: Latency(3, 0.03, 0.05, 0.05)}
    for minutes, reach in ((one, ("09:50", "10:01")), ({**one, 585: one[600]}, ("09:45", "10:01"))):
        plot = _plotted(minutes)
        assert plot is not None
        assert plot.layout["xaxis"]["range"] == [f"1970-01-01 {moment}" for moment in reach]


def test_several_engines_are_shown_each(site: Site) -> None:
    assert '<h3 class="apart">Engines' not in site.page("/tator/now")
    engines = (
        EngineStatus("/run/a.sock", True, "cuda:0", waiting=3, warm_bytes=5_000_000, clicks=41),
        EngineStatus("gpu-2:9091", False, error="Nobody answers there."),
    )
    site.engine.now = replace(site.engine.now, engines=engines)
    site.client.application.extensions["tator_watch"].look()
    page = site.page("/tator/now")
    assert all(said in page for said in ("/run/a.sock", "cuda:0", "5.0 MB", "gpu-2:9091", "Nobody answers there."))
