"""Names and words that people, files and programs give stay text: on every page, on the strip, in logs and CSV."""

from __future__ import annotations

import csv
import io
import json
import logging
import re
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from label_config.build import build
from tator_ml.engine.crops import CropRecipe
from tator_ml.engine.head import Head
from tator_ml.jobs.fence import Fence
from tator_ml.jobs.order import Ending
from tator_ml.learning.stores import head_registry
from tator_ml.quality.figures import Tally
from tator_ml.running.logs import OneLine
from tator_ml.web.dashboard.quality.overview import _line
from tator_sdk.plain_text import on_one_line
from tests.dashboard.conftest import Site
from tests.dashboard.test_data_work import RESULTS, report_of_tweak

from .hostile import MARKUP


class Tags(HTMLParser):
    """Every tag with its attributes, as a browser would find them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def assert_plain(text: str, where: str) -> None:
    for tag, attributes in Tags(text).found:
        assert not [name for name in attributes if name.startswith("on")], (where, tag, attributes)
        data = attributes.get("type") == "application/json"
        assert attributes.get("src", "") != "x" and (tag != "script" or data or "src" in attributes), (where, tag)
        for name in ("href", "src", "action", "formaction"):
            assert not re.match(r"\s*(javascript|data|vbscript):", attributes.get(name) or "", re.I), (
                where,
                attributes,
            )
    assert '"><img src=x' not in text and "<script>window" not in text and '">49' not in text, where


def said(site: Site, kind: str) -> dict[str, Any]:
    """A job's result as its page shows it, with markup for every text and every name in it."""
    real = report_of_tweak(site) if kind == "tweak" else RESULTS.get(kind, {})

    def evil(value: Any) -> Any:
        if isinstance(value, dict):
            return {MARKUP if name[:1].isupper() else name: evil(one) for name, one in value.items()}
        return [evil(one) for one in value] if isinstance(value, list) else MARKUP if isinstance(value, str) else value

    found: dict[str, Any] = evil(real)
    return found


def poisoned(site: Site) -> list[str]:
    """Markup wherever something from outside is kept; the addresses that show it."""
    home, pages = site.settings.home, []
    for kind in ("clip", "tweak", "relabel", "prelabel", "import", "export", "preview", "polygons"):
        request = {"project": 1, "prompt": MARKUP, "kind": "clip", "request": {"project": 1}, "path": MARKUP,
                   "classes": [MARKUP], "dry_run": True}  # fmt: skip
        job = site.job(kind, 1, title=MARKUP, request=request)
        attempt = site.begun(job)
        fence = Fence(site.connection, job.id, attempt)
        fence.log([MARKUP, f"\x1b[31m{MARKUP}"])
        fence.points([json.dumps({"step": 1, MARKUP: 0.5}), json.dumps({"step": 2, MARKUP: 0.4, "epoch": MARKUP})])
        fence.set({"what": MARKUP})
        from tator_ml.jobs import lifecycle

        result = {MARKUP: MARKUP, "version": MARKUP, "reason": MARKUP, **said(site, kind)}
        ended = Ending("failed", error=MARKUP) if kind == "export" else Ending("done", result=result)
        assert lifecycle.finish(site.connection, job.id, attempt, ended)
        folder = home / "jobs" / job.id
        folder.mkdir(parents=True)
        pages += [f"jobs/{job.id}", f"jobs/{job.id}/again", f"data/job/{job.id}", f"train/look/{job.id}"]
    weights, bias = np.eye(2, dtype=np.float32), np.zeros(2, np.float32)
    for number in range(2):
        head = Head((MARKUP, "B"), weights + number, bias, 1.0, 0.5, 0.1, MARKUP, CropRecipe(), "h")
        report = {"settings": {MARKUP: MARKUP}, "metrics": {MARKUP: 0.5},
                  "gate": {"activate": False, "reason": MARKUP}, "imported_from": MARKUP}  # fmt: skip
        pages.append(f"models/head/{head_registry(site.settings).add(head, 1, report).version}")
    (home / "datasets").mkdir(exist_ok=True)
    record = {"id": "evil", "type": "yolo-detect", "path": str(home / MARKUP[:9]), "pictures": 1,
              "classes": {MARKUP: 1},
              "splits": {MARKUP: 1}, "signature": "0" * 64, "fingerprint": "0" * 64,
              "source": {"project": 1, "origin": MARKUP}, "created_at": MARKUP}  # fmt: skip
    (home / "datasets" / "evil.json").write_text(json.dumps(record))
    upload = home / "uploads" / "abcdefabcdef"
    upload.mkdir(parents=True)
    about = {"id": "abcdefabcdef", "name": MARKUP, "nbytes": 1, "who": MARKUP, "moment": time.time(), "project": 1}
    (upload / "upload.json").write_text(json.dumps(about))
    look = {"error": "", "root": MARKUP, "kind": "yolo", "classes": {MARKUP: 3}, "splits": {MARKUP: 1}, "samples": [],
            "bad": [MARKUP], "bad_count": 1, "notes": [MARKUP], "project": 1, "report": None}  # fmt: skip
    (upload / "look.json").write_text(json.dumps(look))
    site.services.notices.failed(1, MARKUP)
    return [*pages, "data/set/evil", "data/import/abcdefabcdef"]


def test_no_page_executes_what_it_shows(site: Site) -> None:
    titles = {1: MARKUP, 2: "'-alert(1)-'"}
    site.client.application.jinja_env.filters["project_title"] = lambda project: titles.get(project, MARKUP)
    pages = [*poisoned(site), "now", "jobs", "jobs?project=1", "data", "data/import", "data/export", "data/polygons",
             "data/tweak", "data/relabel", "data/prelabel", "train", "train?kind=qwen", "train?kind=sam3", "models",
             "models?project=1", "quality", "quality/labels", "quality/examples", "quality/comparison", "team",
             "team?project=1", "settings", "sign-in"]  # fmt: skip
    shown = 0
    for where in pages:
        answer = site.client.get(f"/tator/{where}", follow_redirects=True)
        assert answer.status_code in {200, 400, 404}, (where, answer.status_code, answer.text[-200:])
        assert_plain(answer.text, where)
        shown += "&lt;img src=x" in answer.text
    assert shown >= 25, "the markup was there to be shown"
    for query in ("project", "kind", "like", "label", "next"):
        for where in ("jobs", "train", "models", "quality", "quality/examples", "none"):
            assert_plain(site.client.get(f"/tator/{where}", query_string={query: MARKUP}).text, f"{where}?{query}")
    for where in ("jobs/", "data/set/", "data/import/", "models/head/", "models/", "train/", ""):
        answer = site.client.get(f"/tator/{where}<img src=x onerror=alert(1)>")
        assert_plain(answer.text, where)


def test_errors_for_programs_are_no_pages(site: Site) -> None:
    for where in ("/tator/api/jobs/<img src=x>", "/<script>alert(1)</script>", "/strip/<img src=x>"):
        answer = site.client.get(where)
        assert answer.mimetype == "application/json" and answer.headers["X-Content-Type-Options"] == "nosniff"


def test_the_strip_writes_text_and_takes_no_markup(site: Site) -> None:
    """Its page holds a number and a key; all else comes as JSON, and its script only ever sets ``textContent``."""
    page = site.client.get("/strip", query_string={"project": MARKUP, "key": MARKUP}).text
    assert "<img" not in page and "window.hit" not in page
    assert "innerHTML" not in page and "document.write" not in page and "insertAdjacentHTML" not in page
    site.services.notices.failed(1, MARKUP)
    state = site.client.get("/strip/state?project=1")
    assert state.mimetype == "application/json" and state.get_json()["error"] == MARKUP


def test_labels_with_markup_make_a_configuration_and_no_tags() -> None:
    """The strip stands in it as Markdown, which Label Studio renders: nothing of a label gets there."""
    config = build("all", [MARKUP, "]]>", "&amp;<", "'\""])
    tags = [tag for tag, _ in Tags(config).found]
    assert "img" not in tags and "script" not in tags


@pytest.mark.parametrize("name", ['=HYPERLINK("http://evil")', "+1", "-1+cmd|' /C calc'!A0", "@SUM(1)", "\t=1", "\r=1"])
def test_no_cell_of_a_table_is_a_formula(name: str) -> None:
    stream = io.StringIO()
    csv.writer(stream).writerow(_line("label", name, Tally()))
    (row,) = csv.reader(io.StringIO(stream.getvalue()))
    assert row[1].startswith("'"), row


EVIL = "cat\n2026-01-01 00:00:00 INFO tator: all is well\r\x1b[2J\x1b]0;owned\x07\u2028\u202eevil\x00\x9b31m"


def test_no_line_of_a_log_is_forged(tmp_path: Path) -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(OneLine("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    log = logging.Logger("x")
    log.addHandler(handler)
    log.warning("project %s", EVIL)
    try:
        raise ValueError(EVIL)
    except ValueError:
        log.exception("failed for %s", EVIL)
    lines = stream.getvalue().split("\n")
    assert [one for one in lines if re.match(r"\d{4}-", one)] == [lines[0], lines[1]]
    assert all(one.startswith("  ") or not one or re.match(r"\d{4}-", one) for one in lines)
    assert not set(stream.getvalue()) & set("\x1b\r\x07\x00\x9b\u2028\u202e")


def test_what_is_written_out_can_be_read() -> None:
    assert on_one_line("Müller 汽车 🚗\ttab") == "Müller 汽车 🚗\ttab"
    assert on_one_line("a\nb\x1b[0m") == "a\\nb\\x1b[0m"


def test_what_label_studio_says_of_itself_forges_no_line(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    assert site.client.post("/setup", json={"project": "1.1", "hostname": EVIL}).status_code == 200
    formatted = OneLine().format(next(one for one in caplog.records if "setup of project" in one.message))
    assert "\n" not in formatted and "\x1b" not in formatted
