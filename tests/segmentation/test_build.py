"""The segmentation builder: a complete data set, each picture once, the source untouched, whoever dies."""

from __future__ import annotations

import contextlib
import io
import json
import signal
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from typer.testing import CliRunner

from tator_ml.engine.engine import Engine
from tator_ml.engine.server import EngineServer
from tator_ml.images.store import ImageStore
from tator_ml.jobs import start
from tator_sdk.cli import load_commands
from tator_sdk.datasets import DatasetRegistry
from tator_sdk.errors import TatorError
from tator_sdk.formats import open_dataset
from tator_sdk.formats.dataset import DatasetError, Outline
from tator_sdk.geometry import RotatedBox
from tator_sdk.images import ImageError
from tator_sdk.requests import SegmentationBuild
from tator_sdk.settings import Settings
from tests.jobs.conftest import Jobs, until
from tests.segmentation.material import Counting, bright_pictures, hashes
from training.job import JobCancelled, LocalJob
from training.segmentation.build import PICTURES_A_PLACE, build
from training.segmentation.source import Folder, SourcePicture


@contextlib.contextmanager
def engine(home: Path, segmenter: Counting) -> Iterator[Engine]:
    made = Engine(Settings(home=home), ImageStore(home / "images", 10**9), segmenter, None)
    try:
        yield made
    finally:
        made.close()


def run(request: SegmentationBuild, home: Path, segmenter: Counting, progress: Any = None) -> dict[str, Any]:
    settings = Settings(home=home)
    with engine(home, segmenter) as running:
        return build(request, settings, LocalJob(settings, request.build, progress), running)


def test_a_folder_becomes_polygons(tmp_path: Path) -> None:
    source = bright_pictures(tmp_path / "cars", 20)
    before, segmenter = hashes(source), Counting()
    report = run(SegmentationBuild(path=source, val_share=0.5), tmp_path / "home", segmenter)
    output = tmp_path / "cars_seg"
    assert report["finished"] and report["output"] == str(output) and hashes(source) == before
    assert (report["pictures"], report["objects"], report["masks"], report["kept"]) == (20, 24, 20, 4)
    assert set(segmenter.encoded.values()) == {1} and len(segmenter.encoded) == 20
    assert report["median_vertices"] == 4 and sum(report["splits"].values()) == 20 and report["splits"]["val"] >= 1

    with closing(open_dataset(output, "segment")) as reader:
        assert reader.classes == ("nothing", "bright") and len(reader) == 20
        for picture in reader.pictures():
            number = int(picture.path.stem)
            assert picture.split in {"train", "val"} and not picture.bad
            assert picture.path.samefile(source / "images" / picture.path.name), "a hard link"
            outline = picture.shapes[0].shape
            assert isinstance(outline, Outline) and len(outline.parts[0]) == 4
            x, y = 10 + number % 60, 10 + number % 40
            assert outline.enclosing_xyxy() == pytest.approx((x, y, x + 50, y + 40), abs=0.1)
    lines = (output / "train" / "labels").glob("*.txt")
    words = next(path for path in lines if path.read_text()).read_text().split()
    assert all(len(word.partition(".")[2]) == 6 for word in words[1:9])
    kept = json.loads((output / "kept_boxes.json").read_text())
    assert len(kept) == 4 and "sees nothing" in kept[0]["why"]
    sam3 = json.loads((output / "sam3_dataset.json").read_text())
    assert sam3["type"] == "seg" and sam3["classes"] == ["nothing", "bright"]
    assert (output / "labelmap.txt").read_text() == "nothing\nbright\n"
    assert not list(tmp_path.glob(".*partial*")), "nothing half-written is left"
    record = DatasetRegistry(tmp_path / "home").get(report["dataset"])
    assert record.type == "yolo-segment" and record.pictures == 20 and record.classes == {"nothing": 4, "bright": 20}
    assert record.splits == report["splits"] and record.source["build"] == report["build"]


def test_coco_with_segmentations_loads_in_pycocotools(tmp_path: Path) -> None:
    from pycocotools.coco import COCO

    source = bright_pictures(tmp_path / "cars", 8, split=True)
    report = run(SegmentationBuild(path=source, images="copy"), tmp_path / "home", Counting())
    assert report["splits"] == {"train": 6, "val": 2}, "a source's own split is kept"
    found = 0
    for split in ("train", "val"):
        with contextlib.redirect_stdout(io.StringIO()):
            coco = COCO(tmp_path / "cars_seg" / split / "_annotations.coco.json")
        for one in coco.loadAnns(coco.getAnnIds()):
            found += 1
            picture = coco.loadImgs(one["image_id"])[0]
            assert (tmp_path / "cars_seg" / split / picture["file_name"]).is_file()
            mask = coco.annToMask(one)
            assert mask.shape == (96, 128) and mask.sum() == pytest.approx(one["area"], rel=0.02)
            if coco.loadCats(one["category_id"])[0]["name"] == "bright":
                assert mask.sum() == pytest.approx(50 * 40, rel=0.05)
    assert found == 8 + 2


def test_supervision_reads_the_same_objects(tmp_path: Path) -> None:
    import supervision

    run(SegmentationBuild(path=bright_pictures(tmp_path / "cars", 6, split=True)), tmp_path / "home", Counting())
    output = tmp_path / "cars_seg" / "train"
    found = supervision.DetectionDataset.from_yolo(
        str(output / "images"), str(output / "labels"), str(tmp_path / "cars_seg" / "data.yaml"), force_masks=True
    )
    assert found.classes == ["nothing", "bright"] and len(found) == 4
    for _, _, detections in found:
        bright = detections[detections.class_id == 1]
        assert bright.mask is not None and int(bright.mask[0].sum()) == pytest.approx(50 * 40, rel=0.06)


def test_oriented_boxes(tmp_path: Path) -> None:
    source = bright_pictures(tmp_path / "cars", 5)
    report = run(SegmentationBuild(path=source, oriented=True), tmp_path / "home", Counting())
    assert report["output"].endswith("cars_obb")
    with closing(open_dataset(tmp_path / "cars_obb", "obb")) as reader:
        shapes = [one.shape for picture in reader.pictures() for one in picture.shapes if one.label == "bright"]
    assert len(shapes) == 5 and all(isinstance(one, RotatedBox) for one in shapes)
    sides = [sorted((one.width, one.height)) for one in shapes]  # type: ignore[union-attr]
    assert np.allclose(sides, [40, 50], atol=0.5)


@pytest.mark.parametrize(
    ("how", "kept"), [({"score_threshold": 0.999}, 5), ({"min_size": 2001}, 5), ({"min_size": 1999}, 1), ({}, 1)]
)
def test_boxes_without_a_usable_mask_are_kept_and_counted(tmp_path: Path, how: dict[str, Any], kept: int) -> None:
    source = bright_pictures(tmp_path / "cars", 5)
    report = run(SegmentationBuild(path=source, **how), tmp_path / "home", Counting())
    assert report["kept"] == kept + (kept == 5) and report["objects"] == 6


def test_stopped_twice_each_picture_is_encoded_once(tmp_path: Path) -> None:
    source, segmenter = bright_pictures(tmp_path / "cars", 30), Counting()
    request = SegmentationBuild(path=source)
    for stop in (8, 20):

        def stopped(done: int, total: int, what: str, stop: int = stop) -> None:
            if done >= stop:
                raise JobCancelled

        with pytest.raises(JobCancelled):
            run(request, tmp_path / "home", segmenter, stopped)
        assert not (tmp_path / "cars_seg").exists(), "it appears whole or not at all"

    def late(done: int, total: int, what: str) -> None:
        if what == "writing the data set" and done == 15:
            raise JobCancelled

    with pytest.raises(JobCancelled):
        run(request, tmp_path / "home", segmenter, late)
    assert not (tmp_path / "cars_seg").exists()
    report = run(request, tmp_path / "home", segmenter)
    assert report["there"] == 30 and report["pictures"] == 30 and set(segmenter.encoded.values()) == {1}


def test_what_is_refused_before_any_work(tmp_path: Path) -> None:
    source, segmenter = bright_pictures(tmp_path / "cars", 2), Counting()
    (tmp_path / "cars_seg").mkdir()
    (tmp_path / "cars_seg" / "mine.txt").write_text("mine")
    with pytest.raises(TatorError, match="already"):
        run(SegmentationBuild(path=source), tmp_path / "home", segmenter)
    assert (tmp_path / "cars_seg" / "mine.txt").read_text() == "mine"
    with pytest.raises(TatorError, match="within the source"):
        run(SegmentationBuild(path=source, output=source / "seg"), tmp_path / "home", segmenter)
    (source / "labelmap.txt").unlink()
    with pytest.raises(DatasetError):
        run(SegmentationBuild(path=source, output=tmp_path / "new"), tmp_path / "home", segmenter)
    assert not segmenter.encoded
    with pytest.raises(ValidationError, match="needs a --project"):
        SegmentationBuild(path=source, push=True)
    with pytest.raises(ValidationError, match="give either"):
        SegmentationBuild()


def test_a_broken_picture_and_bad_lines_stop_nothing(tmp_path: Path) -> None:
    source = bright_pictures(tmp_path / "cars", 4)
    whole = (source / "images" / "001.png").read_bytes()
    (source / "images" / "001.png").write_bytes(whole[: len(whole) // 2])  # its header is whole
    (source / "labels" / "002.txt").write_text("1 0.5 0.5 nan 0.2\n1 0.3 0.4 0.5 0.5\n")
    report = run(SegmentationBuild(path=source), tmp_path / "home", Counting())
    assert report["unreadable"] == 1 and report["pictures"] == 3
    assert any("001" in note for note in report["notes"]) and any("002.txt:1" in note for note in report["notes"])


def test_a_picture_that_cannot_be_had_for_a_moment_is_asked_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    image = Folder.image

    def failing(self: Folder, picture: SourcePicture) -> str:
        asked.append(picture.name)
        if asked.count(picture.name) == 1 and "001" in picture.name:
            raise ImageError("Its server does not answer.")
        return image(self, picture)

    monkeypatch.setattr(Folder, "image", failing)
    report = run(SegmentationBuild(path=bright_pictures(tmp_path / "cars", 4)), tmp_path / "home", Counting())
    assert (report["unreadable"], report["pictures"]) == (0, 4) and len(asked) == 5
    assert not any("001" in note for note in report["notes"])


def test_the_command_says_what_it_would_do(tmp_path: Path) -> None:
    source = bright_pictures(tmp_path / "cars", 5)
    said = CliRunner().invoke(load_commands(), ["polygons", "build", "--path", str(source), "--dry-run"])
    assert said.exit_code == 0 and "6 boxes in 5 pictures" in said.output.replace("\n", " "), said.output
    assert not (tmp_path / "cars_seg").exists()
    helped = CliRunner().invoke(load_commands(), ["polygons", "build", "--help"])
    assert "Example" in helped.output and "--mask-threshold" in helped.output


@pytest.mark.faults
def test_two_hosts_one_is_killed_in_the_middle(jobs: Jobs, tmp_path: Path) -> None:
    """Homes, engines and workers of their own; Redis and the pictures are all that they share."""
    source = bright_pictures(tmp_path / "cars", 60)
    before = hashes(source)
    homes = [tmp_path / "one", tmp_path / "two"]
    segmenters = [Counting(0.12), Counting(0.12)]
    engines, servers = [], []
    for home, segmenter in zip(homes, segmenters, strict=True):
        settings = Settings(home=home, redis_url=jobs.settings.redis_url)
        made = Engine(settings, ImageStore(home / "images", 10**9), segmenter, None)
        server = EngineServer(settings, lambda made=made: made)  # type: ignore[misc]
        threading.Thread(target=server.serve, daemon=True).start()
        engines.append(made)
        servers.append(server)
    try:
        request = SegmentationBuild(path=source, shards=2)
        parts = [
            start(jobs.settings, "polygons", request.model_copy(update={"shard": shard}).model_dump(mode="json"),
                  title="test", unique=f"{request.build}:{shard}/2")
            for shard in (0, 1)
        ]  # fmt: skip
        workers = [jobs.worker(TATOR_HOME=str(home)) for home in homes]
        until(lambda: all(len(one.encoded) >= 4 for one in segmenters), 40)
        workers[0].send_signal(signal.SIGKILL)
        servers[0].close()
        ended = [jobs.ends(one.id, 60) for one in parts]
        assert [one.status for one in ended] == ["done", "done"], [one.error for one in ended]
        assert max(one.attempt for one in ended) == 2 and min(one.attempt for one in ended) == 1
        finished = [one.result for one in ended if one.result and one.result["finished"]]
        assert len(finished) == 1 and finished[0]["pictures"] == 60 and finished[0]["objects"] == 72
    finally:
        for server in servers:
            server.close()
    output = tmp_path / "cars_seg"
    labels = sorted(path.name for path in output.rglob("labels/*.txt"))
    assert labels == [f"{number:03}.txt" for number in range(60)]
    assert sum(len(path.read_text().splitlines()) for path in output.rglob("labels/*.txt")) == 72
    assert hashes(source) == before and not list(tmp_path.glob(".*partial*"))
    twice = sum((segmenters[0].encoded + segmenters[1].encoded).values()) - 60
    on_their_way = PICTURES_A_PLACE * Settings().seg_builder_workers_per_device
    assert 0 <= twice <= on_their_way, "no more than what was on its way when the host died"
    assert not jobs.connection.keys("tator:polygons:*results")
