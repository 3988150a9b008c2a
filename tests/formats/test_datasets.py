"""The registry: what a data set is, whether it changed, and that nobody's files are removed."""

from __future__ import annotations

import json
import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tator_sdk.datasets import DatasetRegistry, RegistryError, signature_of_files
from tator_sdk.formats.dataset import DatasetError, LabelledPicture, LabelledShape
from tator_sdk.formats.write_coco import CocoWriter
from tator_sdk.formats.write_crops import CropsWriter
from tator_sdk.formats.write_yolo import YoloWriter
from tator_sdk.formats.writing import DatasetWriter
from tests.formats.material import LINE, NAMES, SIZE_WH, folder, picture

FILES: dict[str, str | bytes] = {
    "images/train/a.jpg": picture(kind="JPEG"), "images/train/b.png": picture(), "images/val/c.png": picture(turned=3),
    "labels/train/a.txt": f"{LINE}\n1 0.2 0.2 0.1 0.1", "labels/val/c.txt": LINE, "classes.txt": NAMES,
}  # fmt: skip


@pytest.fixture
def registry(tmp_path: Path) -> DatasetRegistry:
    return DatasetRegistry(tmp_path / "home")


def written(writer: DatasetWriter, root: Path) -> Path:
    path = folder(root, {"a.jpg": b""}) / "a.jpg"
    with writer:
        for split in ("train", "val"):
            shapes = (LabelledShape("Car", (10.0, 20.0, 60.0, 80.0)),)
            writer.add(LabelledPicture(path, f"{split}/a.jpg", SIZE_WH, shapes, split))
    return writer.written.path


def test_a_folder_of_ones_own(tmp_path: Path, registry: DatasetRegistry) -> None:
    root = folder(tmp_path / "My Cars!", FILES)
    steps: list[tuple[int, int]] = []
    record = registry.register(root, source={"by": "hand"}, progress=lambda *step: steps.append(step))
    assert (record.id, record.type, record.pictures) == ("my-cars", "yolo-auto", 3) and steps[-1] == (3, 3)
    assert record.classes == {"Car": 2, "Van": 1, "Bus": 0} and record.splits == {"train": 2, "val": 1}
    assert registry.get("my-cars") == registry.get(str(root)) == record and registry.list() == [record]
    assert record.source == {"by": "hand"} and record.created_at.endswith("+00:00")
    assert registry.check(record) == "unchanged"
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    assert registry.register(root).id == "my-cars" and len(registry.list()) == 1
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before


def test_the_signature_says_content_and_nothing_else(tmp_path: Path, registry: DatasetRegistry) -> None:
    first = registry.register(folder(tmp_path / "one", FILES))
    renamed = {name.replace("/a.", "/z.").replace("/b.", "/0."): data for name, data in FILES.items()}
    assert registry.register(folder(tmp_path / "two", renamed)).signature == first.signature
    reordered = {**FILES, "labels/train/a.txt": f"1 0.2 0.2 0.1 0.1\n{LINE}"}
    assert registry.register(folder(tmp_path / "three", reordered)).signature == first.signature
    changes: list[dict[str, str | bytes]] = [
        {"labels/val/c.txt": "1 0.5 0.5 0.2 0.4"}, {"labels/val/c.txt": "0 0.5 0.5 0.2 0.5"},
        {"images/val/c.png": picture(turned=1)}, {"images/val/d.png": picture()},
    ]  # fmt: skip
    for number, change in enumerate(changes):
        other = registry.register(folder(tmp_path / f"other{number}", {**FILES, **change}))
        assert other.signature != first.signature, change


def test_a_change_is_seen_and_a_touch_is_none(tmp_path: Path, registry: DatasetRegistry) -> None:
    root = folder(tmp_path / "set", FILES)
    record = registry.register(root)
    os.utime(root / "images" / "train" / "a.jpg", (1, 1))
    assert registry.check(record) == "unchanged"
    assert registry.get("set").fingerprint != record.fingerprint  # so that the next look is a quick one
    (root / "labels" / "val" / "c.txt").write_text("")
    assert registry.check(registry.get("set")) == "changed"
    shutil.rmtree(root / "images")
    assert registry.check(record) == "changed"
    shutil.rmtree(root)
    assert registry.check(record) == "gone"


@pytest.mark.parametrize("kind", ["detect", "segment", "obb", "coco", "crops", "zip"])
def test_what_tator_wrote_may_be_removed(tmp_path: Path, registry: DatasetRegistry, kind: str) -> None:
    out, classes = tmp_path / "out", ["Car", "Van"]
    if kind in {"coco", "crops"}:
        writer: DatasetWriter = (CocoWriter if kind == "coco" else CropsWriter)(out, classes, source={"project": 3})
    else:
        writer = YoloWriter(
            out, classes, "detect" if kind == "zip" else kind, zipped=kind == "zip", source={"project": 3}
        )  # type: ignore[arg-type]
    path = written(writer, tmp_path / "source")
    record = registry.register(path)
    assert record.type == {"coco": "coco", "crops": "crops", "zip": "yolo-detect"}.get(kind, f"yolo-{kind}")
    assert record.classes == {"Car": 2, "Van": 0} and record.splits == {"train": 1, "val": 1}
    assert record.source == {"project": 3} and registry.check(record) == "unchanged"
    registry.remove_files(record)
    assert not path.exists() and not registry.list() and (tmp_path / "source" / "a.jpg").exists()


def test_files_of_others_are_never_removed(tmp_path: Path, registry: DatasetRegistry) -> None:
    mine = registry.register(folder(tmp_path / "mine", FILES))
    with pytest.raises(RegistryError, match="was not written by Tator"):
        registry.remove_files(mine)
    path = written(YoloWriter(tmp_path / "out", ["Car"]), tmp_path / "source")
    record = registry.register(path)
    (path / "notes.txt").write_text("mine")
    with pytest.raises(RegistryError, match="changed or added since"):
        registry.remove_files(record)
    (tmp_path / "link").symlink_to(path)
    assert (path / "notes.txt").exists() and len(registry.list()) == 2
    registry.forget(record)
    assert path.exists() and [one.id for one in registry.list()] == ["mine"]


def test_types_that_tator_does_not_read(tmp_path: Path, registry: DatasetRegistry) -> None:
    root = folder(tmp_path / "qwen", {"annotations.jsonl": "{}\n", "a.jpg": b""})
    record = registry.register(root, type="qwen", classes={"Car": 3}, splits={"train": 1}, source={"job": "x"})
    assert (record.type, record.classes, record.pictures) == ("qwen", {"Car": 3}, 1)
    assert record.signature == signature_of_files(root) and registry.check(record) == "unchanged"
    (root / "annotations.jsonl").write_text("{}")
    assert registry.check(record) == "changed"


def test_what_cannot_be_registered(tmp_path: Path, registry: DatasetRegistry) -> None:
    with pytest.raises(RegistryError, match="nothing at"):
        registry.register(tmp_path / "no")
    with pytest.raises(RegistryError, match="no type 'voc'"):
        registry.register(tmp_path, type="voc")
    with pytest.raises(DatasetError):
        registry.register(folder(tmp_path / "text", {"a.md": "x"}))
    with pytest.raises(RegistryError, match="tator datasets list"):
        registry.get("nothing")
    assert not (tmp_path / "home").exists()


def test_two_of_one_name_and_a_record_that_is_none(tmp_path: Path, registry: DatasetRegistry) -> None:
    ids = [registry.register(folder(tmp_path / place / "cars", FILES)).id for place in ("a", "b")]
    assert ids == ["cars", "cars-2"]
    (tmp_path / "home" / "datasets" / "broken.json").write_text("{")
    (tmp_path / "home" / "datasets" / "other.json").write_text(json.dumps({"id": "x"}))
    assert {one.id for one in registry.list()} == {"cars", "cars-2"}


def test_two_that_register_at_once_have_an_id_each(
    tmp_path: Path, registry: DatasetRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = DatasetRegistry._free_id

    def slow(self: DatasetRegistry, path: Path) -> str:
        found = free(self, path)
        time.sleep(0.2)  # in which the other one looks too
        return found

    monkeypatch.setattr(DatasetRegistry, "_free_id", slow)
    roots = [folder(tmp_path / place / "cars", FILES) for place in ("one", "two")]
    with ThreadPoolExecutor(2) as pool:
        records = list(pool.map(registry.register, roots))
    assert sorted(one.id for one in records) == ["cars", "cars-2"] and len(registry.list()) == 2
