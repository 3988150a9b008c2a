"""The store of examples: annotations as they come, change and go, from several processes."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tator_ml.learning.examples import Examples
from tests.learning.material import labelled

ROOT = Path(__file__).parents[2]
ADDRESSES = {("image", 0): "/data/a.png"}


@pytest.fixture
def examples(tmp_path: Path) -> Iterator[Examples]:
    made = Examples(tmp_path / "home" / "examples.sqlite")
    yield made
    made.close()


def test_an_annotation_is_kept_as_it_is_now(examples: Examples) -> None:
    examples.put(1, 7, 70, "monday", [labelled("r1", "Car"), labelled("r2", "Van", 50)], ADDRESSES)
    first, second = examples.of_project(1)
    assert (first.region, first.label, first.xyxy, first.size_wh) == ("r1", "Car", (10, 10, 30, 30), (100, 80))
    assert (first.task, first.annotation, first.address, first.image) == (7, 70, "/data/a.png", None)
    assert second.region == "r2" and examples.known(1) == {70: "monday"}
    examples.put(1, 7, 70, "tuesday", [labelled("r2", "Bus", 50)], ADDRESSES)
    assert [(one.region, one.label) for one in examples.of_project(1)] == [("r2", "Bus")]
    assert examples.known(1) == {70: "tuesday"}
    examples.put(1, 7, 70, "wednesday", [], ADDRESSES)
    assert examples.of_project(1) == [] and examples.known(1) == {70: "wednesday"}


def test_projects_and_annotations_are_kept_apart(examples: Examples) -> None:
    for project, annotation in ((1, 70), (1, 71), (2, 70)):
        examples.put(project, 7, annotation, "", [labelled("r", "Car")], ADDRESSES)
    assert len(examples.of_project(1)) == 2 and len(examples.of_project(1, 71)) == 1
    examples.delete(1, [70])
    assert [one.annotation for one in examples.of_project(1)] == [71] and len(examples.of_project(2)) == 1


def test_boxes_on_a_picture_that_the_task_lacks_are_left_out(examples: Examples) -> None:
    examples.put(1, 7, 70, "", [labelled("r", "Car")], {("other", 0): "/data/b.png"})
    assert examples.of_project(1) == [] and examples.known(1) == {70: ""}


def test_the_picture_is_carried_over_on_update(examples: Examples) -> None:
    examples.put(1, 7, 70, "1", [labelled("r1", "Car")], ADDRESSES)
    examples.set_image(1, "/data/a.png", "a" * 64)
    examples.put(1, 7, 70, "2", [labelled("r1", "Van"), labelled("r3", "Car")], ADDRESSES)
    assert [one.image for one in examples.of_project(1)] == ["a" * 64] * 2
    examples.put(1, 7, 71, "1", [labelled("r9", "Car")], ADDRESSES)
    assert examples.of_project(1, 71)[0].image == "a" * 64, "a second annotation of the task"
    examples.put(1, 7, 70, "3", [labelled("r1", "Van")], {("image", 0): "/data/new.png"})
    assert examples.of_project(1, 70)[0].image is None, "another address, another picture"
    examples.put(1, 8, 80, "1", [labelled("r", "Van")], ADDRESSES)
    assert examples.of_project(1, 80)[0].image is None, "an address may mean another picture to another task"


def test_keep_only(examples: Examples) -> None:
    for annotation in range(5):
        examples.put(1, 7, annotation, "", [labelled("r", "Car")], ADDRESSES)
    examples.put(2, 7, 99, "", [labelled("r", "Car")], ADDRESSES)
    examples.learned(1, time.time())
    assert examples.keep_only(1, [1, 3, 77]) == 3
    assert sorted(examples.known(1)) == [1, 3] and sorted(examples.known(2)) == [99]
    assert examples.news(1) == 3
    assert examples.keep_only(1, [1, 3]) == 0


def test_what_came_while_label_studio_was_read_is_not_forgotten(examples: Examples) -> None:
    examples.put(1, 7, 1, "", [labelled("r", "Car")], ADDRESSES)
    examples.put(1, 7, 2, "", [labelled("r", "Car")], ADDRESSES)
    known = examples.known(1)  # Label Studio is asked now, and has 1 only
    examples.put(1, 8, 3, "", [labelled("r", "Car")], ADDRESSES)  # meanwhile
    assert examples.keep_only(1, [1], known) == 1
    assert sorted(examples.known(1)) == [1, 3]


def test_a_newer_state_stays_whatever_a_page_says(examples: Examples) -> None:
    new, old = "2026-11-22T19:41:11.323126Z 12ab", "2026-11-22T19:41:11.323125Z 34cd"
    examples.put(1, 7, 70, old, [labelled("r", "Car")], ADDRESSES)
    examples.put(1, 7, 70, new, [labelled("r", "Van")], ADDRESSES)
    examples.put(1, 7, 70, old, [labelled("r", "Car")], ADDRESSES, newer_stays=True)
    assert [one.label for one in examples.of_project(1)] == ["Van"] and examples.known(1) == {70: new}
    examples.put(1, 7, 70, new.replace("12ab", "56ef"), [labelled("r", "Bus")], ADDRESSES, newer_stays=True)
    assert [one.label for one in examples.of_project(1)] == ["Bus"], "the configuration changed, the annotation did not"
    examples.put(1, 7, 70, old, [labelled("r", "Car")], ADDRESSES)
    assert [one.label for one in examples.of_project(1)] == ["Car"], "a webhook is right, whatever the clock says"
    assert examples.knows(1, 70) and not examples.knows(1, 71)


def test_news_are_counted_once_each_until_they_are_learned(examples: Examples) -> None:
    for _ in range(3):
        examples.put(1, 7, 70, "", [], ADDRESSES)
    examples.put(1, 7, 71, "", [], ADDRESSES)
    examples.put(2, 7, 70, "", [], ADDRESSES)
    assert examples.news(1) == 2 and examples.news(2) == 1
    examples.delete(1, [71, 404])
    assert examples.news(1) == 2, "one that is not known is no news"
    began = time.time()
    time.sleep(0.01)
    examples.put(1, 7, 73, "", [], ADDRESSES)
    examples.learned(1, began)
    assert examples.news(1) == 1 and examples.news(2) == 1
    examples.learned(1, time.time())
    assert examples.news(1) == 0


def test_a_failed_write_leaves_what_was_there(examples: Examples) -> None:
    examples.put(1, 7, 70, "1", [labelled("r", "Car")], ADDRESSES)
    with pytest.raises(Exception):  # noqa: B017 - whatever SQLite raises
        examples.put(1, 7, 70, "2", [labelled("r", {"no": "label"})], ADDRESSES)  # type: ignore[arg-type]
    assert examples.known(1) == {70: "1"} and len(examples.of_project(1)) == 1
    examples.put(1, 7, 70, "3", [], ADDRESSES)
    assert examples.known(1) == {70: "3"}


WRITER = """
import sys
from pathlib import Path
from tests.learning.material import labelled
from tator_ml.learning.examples import Examples
path, begin, count = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
print("ready", flush=True)
sys.stdin.readline()
examples = Examples(path)
for number in range(begin, begin + count):
    examples.put(1, number, number, "", [labelled("r", "Car")], {("image", 0): f"/{number}"})
    examples.put(1, 1, 5000 + number % 5, str(begin), [labelled("r", "Car")], {("image", 0): "/shared"})
    examples.set_image(1, f"/{number}", "a" * 64)
    if number % 10 == 0:
        examples.delete(1, [number])
examples.close()
"""


def test_several_processes_open_and_write_at_once(tmp_path: Path) -> None:
    """Two that open a new file at the same moment must not find it locked; no write is lost."""
    path = tmp_path / "examples.sqlite"
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), str(1000 * part), "60"],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for part in range(4)
    ]  # fmt: skip
    for writer in writers:
        assert writer.stdout is not None and writer.stdout.readline() == "ready\n"
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
    for writer in writers:
        _, errors = writer.communicate(timeout=60)
        assert writer.returncode == 0, errors
    examples = Examples(path)
    found = examples.of_project(1)
    own = [one for one in found if one.annotation < 5000]
    assert len(own) == 4 * 54 and all(one.image == "a" * 64 for one in own)
    assert len(found) - len(own) == 5 and examples.news(1) == 4 * 60 + 5
    examples.close()
