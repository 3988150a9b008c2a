"""Zips: whatever an entry says, nothing is written outside of the folder, nothing is lost, and a sentence tells it."""

from __future__ import annotations

import os
import stat
import zipfile
from pathlib import Path

import pytest

from tator_sdk.formats import open_dataset
from tator_sdk.formats.archive import ArchiveLimits, unpack
from tator_sdk.formats.dataset import DatasetError
from tests.formats.material import LINE, NAMES, picture

GOOD = {"images/a.jpg": picture(kind="JPEG"), "labels/a.txt": LINE.encode(), "classes.txt": NAMES.encode()}


def zipped(path: Path, more: dict[str, bytes] | None = None, method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in {**GOOD, **(more or {})}.items():
            archive.writestr(name, data)
    return path


def files_of(root: Path) -> set[str]:
    return {path.relative_to(root).as_posix() for path in root.rglob("*") if not path.is_dir()}


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("../out.txt", "leads out"), ("images/../../out.txt", "leads out"), ("..\\out.txt", "leads out"),
        ("/etc/out.txt", "absolute"), ("C:\\out.txt", "absolute"), ("c:/out.txt", "absolute"),
        ("images/A.JPG", "upper and lower"), ("images/con.txt", "not every system"), ("images/ /x.txt", "not every"),
        ("images/a.jpg/b.txt", "there already"), ("x" * 300 + ".txt", "too long"), ("a\nb.txt", "not every system"),
    ],
)  # fmt: skip
def test_entries_that_may_not_be_written(tmp_path: Path, name: str, said: str) -> None:
    done = unpack(zipped(tmp_path / "set.zip", {name: b"evil"}), tmp_path / "in" / "set")
    assert files_of(done.folder) == set(GOOD) and done.files == 3
    assert [said in one.reason for one in done.skipped] == [True] and done.skipped[0].number == 4
    assert files_of(tmp_path) == {"set.zip", *(f"in/set/{name}" for name in GOOD)}
    assert (done.folder / "images" / "a.jpg").read_bytes() == GOOD["images/a.jpg"]


def test_the_same_name_twice_keeps_the_first(tmp_path: Path) -> None:
    path = zipped(tmp_path / "set.zip")
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("classes.txt", "Evil\n")
    done = unpack(path, tmp_path / "set")
    assert (done.folder / "classes.txt").read_text() == NAMES and len(done.skipped) == 1


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
def test_links_and_devices_are_left_out(tmp_path: Path, kind: int) -> None:
    path = zipped(tmp_path / "set.zip")
    with zipfile.ZipFile(path, "a") as archive:
        link = zipfile.ZipInfo("images/link.jpg")
        link.external_attr = (kind | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
    done = unpack(path, tmp_path / "set")
    assert files_of(done.folder) == set(GOOD) and "a link" in done.skipped[0].reason
    assert not any(one.is_symlink() for one in done.folder.rglob("*"))


def test_what_no_data_set_needs_is_left_out(tmp_path: Path) -> None:
    done = unpack(zipped(tmp_path / "set.zip", {"run.sh": b"x", "more.zip": b"x", "a.py": b"x"}), tmp_path / "set")
    assert files_of(done.folder) == set(GOOD) and not done.skipped


def test_a_bomb_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    bomb = zipped(tmp_path / "bomb.zip", {"images/b.bmp": bytes(20 * 2**20)})
    with pytest.raises(DatasetError, match="times its size; is it a bomb"):
        unpack(bomb, tmp_path / "set", ArchiveLimits(ratio_from_bytes=10 * 2**20))
    assert files_of(tmp_path) == {"bomb.zip"} and not (tmp_path / "set").exists()


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        (ArchiveLimits(entries=2), "has 3 files, more than the 2"),
        (ArchiveLimits(total_bytes=100), "more than the 100 allowed"),
        (ArchiveLimits(total_bytes=2**70), None),
    ],
)
def test_limits_of_the_whole(tmp_path: Path, limits: ArchiveLimits, said: str | None) -> None:
    path = zipped(tmp_path / "set.zip")
    if said is None:
        assert unpack(path, tmp_path / "set", limits).files == 3
        return
    with pytest.raises(DatasetError, match=said):
        unpack(path, tmp_path / "set", limits)
    assert files_of(tmp_path) == {"set.zip"}


def test_a_single_file_that_is_too_large(tmp_path: Path) -> None:
    path = zipped(tmp_path / "set.zip", {"large.txt": os.urandom(9000)})
    done = unpack(path, tmp_path / "set", ArchiveLimits(file_bytes=5000))
    assert files_of(done.folder) == set(GOOD) and "larger than the 5000" in done.skipped[0].reason


def test_a_size_that_lies_is_counted_while_it_comes(tmp_path: Path) -> None:
    path = zipped(tmp_path / "set.zip", {"long.txt": b"1" * 5000})
    data = path.read_bytes()
    path.write_bytes(data.replace((5000).to_bytes(4, "little"), (50).to_bytes(4, "little")))
    done = unpack(path, tmp_path / "set")
    assert files_of(done.folder) == set(GOOD) and "long.txt" in done.skipped[0].reason


def test_encrypted_ones_are_refused(tmp_path: Path) -> None:
    path = zipped(tmp_path / "set.zip")
    data = bytearray(path.read_bytes())
    for mark, offset in ((b"PK\x01\x02", 8), (b"PK\x03\x04", 6)):
        data[data.index(mark) + offset] |= 1
    path.write_bytes(data)
    with pytest.raises(DatasetError, match="is encrypted; unpack it yourself"):
        unpack(path, tmp_path / "set")


def test_damage_costs_the_entry_it_hits(tmp_path: Path) -> None:
    path = zipped(tmp_path / "set.zip", {"labels/b.txt": b"unmistakable"}, zipfile.ZIP_STORED)
    path.write_bytes(path.read_bytes().replace(b"unmistakable", b"unmistakXble"))
    done = unpack(path, tmp_path / "set")
    assert files_of(done.folder) == set(GOOD) and "damaged" in done.skipped[0].reason


@pytest.mark.parametrize("cut", [0, 30, 200, -10])
def test_an_archive_that_breaks_off_is_refused(tmp_path: Path, cut: int) -> None:
    path = zipped(tmp_path / "set.zip")
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(DatasetError, match="is it a whole zip"):
        unpack(path, tmp_path / "set")
    assert files_of(tmp_path) == {"set.zip"}


def test_a_folder_with_something_in_it_is_never_written_to(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "mine.txt").write_text("mine")
    with pytest.raises(DatasetError, match="is not empty"):
        unpack(zipped(tmp_path / "set.zip"), tmp_path / "set")
    assert files_of(tmp_path / "set") == {"mine.txt"}
    (tmp_path / "empty").mkdir()
    assert unpack(tmp_path / "set.zip", tmp_path / "empty").files == 3


def test_a_data_set_in_a_zip(tmp_path: Path) -> None:
    wrapped = {f"my set/{name}": data for name, data in GOOD.items()}
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for name, data in {**wrapped, "__MACOSX/my set/._a.jpg": b"x", "../up.txt": LINE.encode()}.items():
            archive.writestr(name, data)
    reader = open_dataset(tmp_path / "set.zip")
    (found,) = reader.pictures()
    assert found.name == "a.jpg" and len(found.shapes) == 1 and len(reader) == 1
    assert ["leads out" in str(one) for one in reader.strays()] == [True]
    assert found.path.exists()
    reader.close()
    assert not found.path.exists() and files_of(tmp_path) == {"set.zip"}


@pytest.mark.parametrize("entry", ["/etc", "../../..", "list.txt"])
def test_metadata_of_a_zip_leads_nowhere_else(tmp_path: Path, entry: str) -> None:
    (tmp_path / "secret.jpg").write_bytes(GOOD["images/a.jpg"])
    yaml = f"path: {tmp_path}\ntrain: [{entry}, '{tmp_path}']\nval: images\nnames: [Car, Van, Bus]"
    more = {"data.yaml": yaml.encode(), "list.txt": f"{tmp_path}/secret.jpg\n".encode()}
    reader = open_dataset(zipped(tmp_path / "set.zip", more))
    assert [one.path.name for one in reader.pictures()] == ["a.jpg"]
    reader.close()


def test_names_are_not_looked_for_beside_the_temporary_folder(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        archive.writestr("a.jpg", GOOD["images/a.jpg"])
    with pytest.raises(DatasetError, match=r"In .*set\.zip: .*labelmap\.txt"):
        open_dataset(tmp_path / "set.zip")


@pytest.mark.parametrize("name", ["none", "notes.md", "fake.zip"])
def test_what_is_no_data_set(tmp_path: Path, name: str) -> None:
    if name != "none":
        (tmp_path / name).write_text("text")
    with pytest.raises(DatasetError, match=name):
        open_dataset(tmp_path / name)
    with pytest.raises(DatasetError, match="no kind 'voc'"):
        open_dataset(tmp_path, "voc")


def test_yolo_goes_before_coco_and_says_so(tmp_path: Path) -> None:
    from tests.formats.test_coco import content, entry

    for name, data in {**GOOD, "a.png": picture(), "set.json": content(entry(1)).encode()}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    reader = open_dataset(tmp_path)
    assert reader.kind == "auto" and any("tator import coco" in note for note in reader.notes)
    assert open_dataset(tmp_path, "coco").kind == "coco"
    with pytest.raises(DatasetError, match="no COCO file"):
        open_dataset(tmp_path / "labels", "coco")
