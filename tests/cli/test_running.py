"""``tator status``, ``segmenter``, ``words`` and ``budget`` against the real application."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
import typer
from typer.testing import CliRunner
from werkzeug.serving import make_server

from tator_ml.projects import KeptWords
from tator_sdk.cli import connecting
from tator_sdk.cli.running import bytes_of, in_units
from tator_sdk.errors import TatorError
from tests.wire.conftest import Running, pictures, running, settings

__all__ = ["pictures", "running", "settings"]


@pytest.fixture
def address(running: Running) -> Iterator[str]:
    server = make_server("127.0.0.1", 0, running.client.application, threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join(5)


def tator(*words: str) -> str:
    app = typer.Typer()
    connecting.register(app)
    done = CliRunner().invoke(app, words, env={"COLUMNS": "200"})
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.output


def test_status_shows_lanes_and_pictures(address: str, running: Running, payload: Any) -> None:
    assert "none yet" in tator("status", "--backend", address)
    body = payload("predict_interactive_keypoint_ui")["body"]
    body["params"]["context"]["result"][0]["value"].update(x=40.0, y=40.0)
    running.predict(body)
    said = tator("status", "--backend", address)
    assert "100 % encoded first" in said and "preload" in said and "bright-1" in said
    assert running.engine.status().warm[0].image[:12] in said


def test_a_segmenter_is_chosen_by_name(address: str, running: Running) -> None:
    assert "starter (the default)" in tator("segmenter", "--project", "3", "--backend", address)
    assert "project 3: sam2-tiny" in tator("segmenter", "--project", "3", "sam2-tiny", "--backend", address)
    assert running.services.projects.get(3).segmenter == "sam2-tiny"
    with pytest.raises(TatorError, match="There is no segmenter 'sam9'"):
        tator("segmenter", "--project", "3", "sam9", "--backend", address)
    assert "(the default)" in tator("segmenter", "--project", "3", "default", "--backend", address)
    assert "project 3: refine" in tator("assists", "--project", "3", "refine", "--backend", address)


def test_kept_words_are_shown_set_and_forgotten(address: str, running: Running) -> None:
    where = ("--project", "3", "--backend", address)
    assert "no words are kept" in tator("words", *where)
    assert "'car, bus' is asked on every next picture" in tator("words", *where, "--keep", " car, bus ")
    assert running.services.projects.get(3).words == KeptWords("car, bus")
    assert "'all' is asked" in tator("words", *where, "--keep", "all", "--field", "prompt")
    assert running.services.projects.get(3).words == KeptWords("", "prompt")
    assert "'all' is asked" in tator("words", *where)
    with pytest.raises(TatorError, match="exclude each other"):
        tator("words", *where, "--keep", "car", "--forget")
    assert "no words are kept" in tator("words", *where, "--forget")
    assert running.services.projects.get(3).words is None


def test_the_budget_is_set_in_units_that_people_use(address: str, running: Running) -> None:
    assert "may take 2.0 MiB; 0 take 0 B" in tator("budget", "2M", "--backend", address)
    assert running.engine.status().budget_bytes == 2 * 2**20


@pytest.mark.parametrize(
    ("size", "count"), [("0", 0), ("512M", 2**29), ("1.5 GiB", 3 * 2**29), ("4gb", 2**32), ("7", 7)]
)
def test_sizes(size: str, count: int) -> None:
    assert bytes_of(size) == count
    assert bytes_of(in_units(count)) == count


@pytest.mark.parametrize("size", ["", "much", "-3", "1e9", "G"])
def test_what_is_no_size(size: str) -> None:
    with pytest.raises(TatorError, match="no size"):
        bytes_of(size)


def test_nobody_there() -> None:
    with pytest.raises(TatorError):
        tator("status", "--backend", "http://127.0.0.1:9")
