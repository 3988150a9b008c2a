"""Exports: which annotation counts, where pictures may come from, what is left out, and the verbs."""

from __future__ import annotations

import base64
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from tator_sdk.cli import datasets as datasets_cli
from tator_sdk.cli import exporting
from tator_sdk.datasets import DatasetRegistry
from tator_sdk.downloads import PictureSource
from tator_sdk.errors import TatorError
from tator_sdk.export import Exported, export
from tator_sdk.export_source import chosen_results, predicted_results
from tator_sdk.formats import open_dataset
from tator_sdk.images import ImageError
from tator_sdk.requests import Export
from tator_sdk.settings import Settings
from tests.formats.material import SIZE_WH, picture

CONFIG = (
    '<View><Image name="image" value="$image"/><RectangleLabels name="box" toName="image"><Label value="Car"/>'
    '<Label value="Van"/></RectangleLabels></View>'
)


def data_url(shade: int, size_wh: tuple[int, int] = SIZE_WH) -> str:
    data = picture(size_wh) + bytes([shade])  # what follows a PNG's end makes each another content
    return "data:image/png;base64," + base64.b64encode(data).decode()


def box(label: str = "Car", size_wh: tuple[int, int] = SIZE_WH, **more: Any) -> dict[str, Any]:
    value = {"x": 10, "y": 20, "width": 30, "height": 40, "rotation": 0, "rectanglelabels": [label]}
    return {"id": "r", "type": "rectanglelabels", "from_name": "box", "to_name": "image", "value": value,
            "original_width": size_wh[0], "original_height": size_wh[1], **more}  # fmt: skip


def task(number: int, *results: list[Any], image: str | None = None, predictions: Any = ()) -> Any:
    annotations = [{"id": place, "result": result} for place, result in enumerate(results)]
    data = {"image": data_url(number) if image is None else image}
    return SimpleNamespace(id=number, data=data, annotations=annotations, predictions=list(predictions))


class Studio:
    def __init__(self, *tasks: Any, config: str = CONFIG) -> None:
        about = SimpleNamespace(
            label_config=config, num_tasks_with_annotations=len(tasks), task_number=len(tasks), title="T"
        )
        self.projects = SimpleNamespace(get=lambda _: about)
        self.tasks = SimpleNamespace(list=lambda **_: iter(tasks))


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Exports tasks of a project in memory to ``out``."""

    def exported(*tasks: Any, form: Any = "yolo", config: str = CONFIG, **wanted: Any) -> Exported:
        monkeypatch.setattr("tator_sdk.export.open_studio", lambda _: Studio(*tasks, config=config))
        request = Export(**{"project": 3, "output": tmp_path / "out", **wanted})
        return export(form, request, Settings())

    return exported


def test_the_annotation_that_was_changed_last_counts() -> None:
    old = {"id": 9, "updated_at": "2026-01-01T00:00:00Z", "result": ["old"]}
    new = {"id": 3, "updated_at": "2026-02-01T00:00:00Z", "result": ["new"]}
    skipped = {"id": 11, "updated_at": "2026-03-01T00:00:00Z", "result": ["skipped"], "was_cancelled": True}
    assert chosen_results([new, skipped, old], "newest") == [["new"]]
    assert chosen_results([new, skipped, old], "all") == [["old"], ["new"]]
    assert chosen_results([skipped], "newest") == [] == chosen_results([], "all")
    rows = [{"id": 1, "model_version": "a", "result": [1]}, SimpleNamespace(id=2, model_version="a", result=[2]),
            {"id": 3, "model_version": "b", "result": [3]}]  # fmt: skip
    assert predicted_results(rows, "a") == [[2]] and predicted_results(rows, "c") == []


def test_each_picture_is_on_the_side_its_content_says(run: Any, tmp_path: Path) -> None:
    tasks = [task(number, [box()]) for number in range(30)]
    first = run(*tasks)
    assert 1 <= first.pictures["val"] <= 14 and sum(first.pictures.values()) == 30
    again = run(*reversed(tasks), output=tmp_path / "again", form="coco")
    other = run(*tasks, output=tmp_path / "other", seed=7)
    sides = [
        {one.path.read_bytes(): one.split for one in open_dataset(tmp_path / place).pictures()}
        for place in ("out", "again", "other")
    ]
    assert sides[0] == sides[1] != sides[2] and first.pictures == again.pictures
    assert set(run(*tasks, output=tmp_path / "none", val_share=0).pictures) == {"train"}
    assert [one.id for one in DatasetRegistry(Settings().home).list()] and first.record is not None
    assert first.record.source == {"project": 3, "title": "T", "predictions": None}
    assert other.classes == {"Car": 30, "Van": 0}


def test_what_cannot_be_exported_is_told_and_harms_no_other(run: Any, tmp_path: Path) -> None:
    done = run(
        task(1, [box()]),
        task(2, [box()], image="https://elsewhere.example/a.png"),
        task(3, [box("Ghost"), box("Van")]),
        task(4, [box(size_wh=(100, 200)), box()]),
        task(5, []),
        task(6, [box(size_wh=(400, 200))]),
        task(7, [box()], image="data:image/png;base64,AAAA"),
        task(8, [box()], image=""),
    )
    assert sum(done.pictures.values()) == 5 and done.classes == {"Car": 3, "Van": 1}
    said = "\n".join(done.problems)
    for words in (
        "task 2: Pictures from elsewhere.example are not allowed", "task 3: region r: it has not one class",
        "task 4: region r was drawn on 100 x 200, but its picture is 200 x 100", "task 7: The file is not",
    ):  # fmt: skip
        assert words in said, words
    assert len(done.problems) == 4
    shapes = [one.shapes[0].shape for one in open_dataset(tmp_path / "out").pictures() if one.shapes]
    assert all(shape == pytest.approx((20, 20, 80, 60), abs=0.01) for shape in shapes)  # task 6 was scaled
    assert sum(run(task(1, [box()]), task(5, []), output=tmp_path / "full", empty=False).pictures.values()) == 1


def test_nothing_to_export_leaves_nothing(run: Any, tmp_path: Path) -> None:
    with pytest.raises(TatorError, match="Project 3 has no annotated task"):
        run()
    with pytest.raises(TatorError, match=r"no prediction of v1.*First of 1 problems: task 2"):
        run(
            task(2, image="http://x.example/a", predictions=[{"id": 1, "model_version": "v1", "result": []}]),
            predictions="v1",
        )
    with pytest.raises(TatorError, match="at least one class"):
        run(task(1, [box()]), config="<View/>")
    with pytest.raises(TatorError, match="leave --no-images out"):
        run(task(1, [box()]), form="crops", images=False)
    assert not list(tmp_path.glob("*out*"))


def test_a_dry_run_and_labels_alone(run: Any, tmp_path: Path) -> None:
    tasks = [task(1, [box(), box("Ghost")]), task(2, [], image="http://x.example/a.png"), task(3, [box("Van")])]
    dry = run(*tasks, dry_run=True)
    assert dry.pictures == {"": 3} and dry.classes == {"Car": 1, "Van": 1} and len(dry.problems) == 1
    assert dry.written is None and not (tmp_path / "out").exists() and not Settings().home.exists()
    labels = run(*tasks, images=False)
    assert sum(labels.pictures.values()) == 2 and "nobody knows" in labels.problems[1]
    assert labels.record is not None and labels.record.classes == {"Car": 1, "Van": 1}
    assert DatasetRegistry(Settings().home).check(labels.record) == "unchanged"
    assert not list((tmp_path / "out").rglob("*.png")) and len(list((tmp_path / "out").rglob("labels/*/*.txt"))) == 2


class Pictures(BaseHTTPRequestHandler):
    """``/ok.png``, ``/cut.png`` that breaks off, ``/flaky.png`` that does so once, and redirects."""

    seen: list[str] = []  # noqa: RUF012

    def do_GET(self) -> None:
        data, path = picture(), self.path.partition("?")[0]
        self.seen.append(path)
        if path in {"/away", "/round"}:
            self.send_response(302)
            self.send_header("Location", "http://elsewhere.example/a.png" if path == "/away" else "/round")
            self.end_headers()
            return
        if path in {"/401", "/404", "/503"}:
            self.send_error(int(path[1:]))
            return
        whole = path == "/ok.png" or (path == "/flaky.png" and self.seen.count(path) > 1)
        self.send_response(206)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Content-Range", f"bytes 0-{len(data) - 1}/{len(data)}")
        self.end_headers()
        self.wfile.write(data if whole else data[:20])

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Pictures) as made:
        Pictures.seen.clear()
        threading.Thread(target=made.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{made.server_port}"
        made.shutdown()


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/away", "elsewhere.example are not allowed"), ("/round", "redirects too often"), ("/401", "refuses"),
        ("/404", "not there any more"), ("/503", "answers 503"), ("/cut.png", "cannot be reached"),
        ("file:///etc/passwd", "not allowed"), ("http://other.example/a.png", "not allowed"),
        ("ftp://x/a", "not allowed"),
        ("data:image/png,AA", "not base64"),
    ],
)  # fmt: skip
def test_pictures_that_are_not_had(server: str, path: str, said: str) -> None:
    source = PictureSource(Settings(label_studio_url=server))
    with pytest.raises(ImageError, match=said):
        source.read(path)
    source.close()


def test_pictures_within_the_limits(server: str, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(picture())
    allowed = Settings(label_studio_url="http://127.0.0.1:1", image_hosts=("127.0.0.1",), image_roots=(tmp_path,))
    source = PictureSource(allowed)
    assert source.read(f"{server}/ok.png").data == picture() == source.read(str(tmp_path / "a.png")).data
    small = PictureSource(allowed.model_copy(update={"image_max_bytes": 50}))
    with pytest.raises(ImageError, match="larger than 50 bytes"):
        small.read(f"{server}/ok.png")


def test_a_transfer_that_breaks_off_is_tried_again(run: Any, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABEL_STUDIO_URL", server)
    monkeypatch.setattr("tator_sdk.export.RETRY_SECONDS", (0.01, 0.01))
    done = run(
        task(1, [box()], image="/flaky.png"), task(2, [box()], image="/cut.png"), task(3, [box()], image="/ok.png")
    )
    assert sum(done.pictures.values()) == 2 and len(done.problems) == 1 and "task 2" in done.problems[0]
    assert Pictures.seen.count("/flaky.png") == 2 and Pictures.seen.count("/cut.png") == 3


@pytest.fixture
def tator(monkeypatch: pytest.MonkeyPatch) -> Any:
    app = typer.Typer()
    exporting.register(app)
    datasets_cli.register(app)
    monkeypatch.setattr(
        "tator_sdk.export.open_studio", lambda _: Studio(task(1, [box(), box("Ghost")]), task(2, [box("Van")]))
    )

    def called(*words: str | Path, code: int = 0, answer: str = "") -> str:
        done = CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "160"}, input=answer)
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        assert done.exit_code == code, done.output
        return done.output

    return called


def test_the_verbs_from_export_to_removal(tator: Any, tmp_path: Path) -> None:
    said = tator("export", "yolo", "--project", "3", "--output", tmp_path / "cars", "--val_share", "0.5")
    assert "2 pictures" in said and "2 objects" in said and "task 1: region r: it has not one class" in said
    assert "tator datasets show cars" in said
    with pytest.raises(TatorError, match="--force"):
        tator("export", "yolo", "-p", "3", "-o", tmp_path / "cars")
    said = tator("export", "coco", "-p", "3", "-o", tmp_path / "cars", "--force")
    assert "What was there lies at" in said and len(list(tmp_path.glob("cars.before-*"))) == 1
    assert "cars" in tator("datasets", "list")
    assert "coco, 2 pictures, unchanged" in tator("datasets", "show", "cars")
    assert "Nothing was removed" in tator("datasets", "delete", "cars", "--files", code=1, answer="n\n")
    assert (tmp_path / "cars").exists()
    assert "Removed" in tator("datasets", "delete", "cars", "--files", answer="y\n")
    assert not (tmp_path / "cars").exists() and "There is none yet" in tator("datasets", "list")
    (before,) = tmp_path.glob("cars.before-*")
    assert "2 pictures" in tator("datasets", "register", before)
    assert "its files stay" in tator("datasets", "delete", before, "--yes") and before.exists()


def test_what_is_refused(tator: Any, tmp_path: Path) -> None:
    with pytest.raises(TatorError, match="no form 'voc'; there are yolo, yolo-seg"):
        tator("export", "voc", "-p", "3", "-o", tmp_path / "x")
    assert "--val-share" in tator("export", "yolo", "-p", "3", "-o", tmp_path / "x", "--val-share", "1", code=2)
    assert "--output" in tator("export", "yolo", "-p", "3", code=2)
    with pytest.raises(TatorError, match="no data set 'x'"):
        tator("datasets", "show", "x")
