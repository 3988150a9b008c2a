"""A look at data sets: what they hold, what an import of one would do, and whether they are still what they were.

The dashboard has it done in a process of its own (``python -m tator_sdk.looking``), so that reading many pictures
makes nobody else wait, and reads what was found from files.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from tator_sdk.datasets import READABLE, DatasetRecord, DatasetRegistry, fingerprint_of
from tator_sdk.errors import TatorError
from tator_sdk.files import write_durably
from tator_sdk.formats.archive import ArchiveLimits, seal, unpack
from tator_sdk.formats.dataset import BadLine
from tator_sdk.formats.opening import dataset_root, open_dataset
from tator_sdk.importing import Importer
from tator_sdk.requests import DataImport
from tator_sdk.samples import Sample, Sampler
from tator_sdk.settings import Settings

LOOK_FILE, PROGRESS_FILE, UNPACKED = "look.json", "progress.json", "set"
MOST_BAD = 50
UNPACKED_TIMES = 4
WRITE_SECONDS = 0.25
KINDS: dict[str, Literal["yolo", "detect", "segment", "obb", "coco"]] = {
    "auto": "yolo", "detect": "detect", "segment": "segment", "obb": "obb", "coco": "coco",
}  # fmt: skip


@dataclass(frozen=True)
class Look:
    """What a data set holds.

    Attributes:
        error: why it cannot be used, in a sentence; then there is nothing else.
        root: folder of the data set.
        kind: as `DataImport` takes it.
        classes: shapes of each class, in the order of the classes.
        splits: pictures of each split.
        samples: some pictures, drawn small into the folder ``samples``.
        bad: lines that would be left out, the first of them, with ``bad_count`` in all.
        notes: what else there is to know, in sentences.
        project: whose import was tried, and ``report``, what it would do (`ImportReport`).
    """

    error: str = ""
    root: str = ""
    kind: str = ""
    classes: dict[str, int] = field(default_factory=dict)
    splits: dict[str, int] = field(default_factory=dict)
    samples: tuple[Sample, ...] = ()
    bad: tuple[str, ...] = ()
    bad_count: int = 0
    notes: tuple[str, ...] = ()
    project: int | None = None
    report: dict[str, Any] | None = None

    @classmethod
    def read(cls, folder: Path) -> Look | None:
        """What was found; None while it is not there."""
        try:
            given = json.loads((folder / LOOK_FILE).read_bytes())
        except (OSError, ValueError):
            return None
        samples = tuple(Sample.of_json(one) for one in given.pop("samples"))
        return cls(**{**given, "samples": samples, "bad": tuple(given["bad"]), "notes": tuple(given["notes"])})

    def write(self, folder: Path) -> None:
        """Keep it."""
        write_durably(folder / LOOK_FILE, json.dumps(asdict(self), ensure_ascii=False).encode())


class _Progress:
    """How far a look is, written now and then."""

    def __init__(self, folder: Path) -> None:
        self._path, self._written = folder / PROGRESS_FILE, 0.0

    def __call__(self, done: int, total: int, what: str) -> None:
        if time.monotonic() - self._written > WRITE_SECONDS:
            self._written = time.monotonic()
            write_durably(self._path, json.dumps({"done": done, "total": total, "what": what}).encode())


def progress_of(folder: Path) -> dict[str, Any]:
    """``done``, ``total`` and ``what`` of a look that goes on."""
    try:
        return dict(json.loads((folder / PROGRESS_FILE).read_bytes()))
    except (OSError, ValueError):
        return {"done": 0, "total": 0, "what": "starting"}


def look_at_upload(folder: Path, project: int | None, settings: Settings) -> Look:
    """Unpack what was uploaded, read it whole, and try its import.

    Args:
        folder: with the archive, or unpacked already; takes what was found.
        project: that it would go into; None to look only.
        settings: of this installation.

    Returns:
        What was found, which is also kept in the folder; where it cannot be used, why.
    """
    try:
        look = _look(folder, project, settings, _Progress(folder))
    except TatorError as error:
        look = Look(error=_without(str(error), folder))
    look.write(folder)
    return look


def _look(folder: Path, project: int | None, settings: Settings, progress: Callable[[int, int, str], None]) -> Look:
    place, skipped = folder / UNPACKED, tuple[BadLine, ...]()
    for archive in folder.glob("*.zip"):
        skipped += _unpacked(archive, place / archive.stem, settings, progress)
        seal(place)
        archive.unlink()
    root = dataset_root(place)
    bad = [_without(f"{one.file.name}: {one.reason}", folder) for one in skipped]
    with closing(open_dataset(root)) as reader:
        sampler = Sampler(folder / "samples", max_pixels=settings.image_max_pixels)
        classes: Counter[str] = Counter(dict.fromkeys(reader.classes, 0))
        splits: Counter[str] = Counter()
        for done, picture in enumerate(reader.pictures(), 1):
            classes.update(one.label for one in picture.shapes)
            splits[picture.split] += 1
            bad += [_without(str(one), folder) for one in picture.bad]
            sampler.see(picture)
            progress(done, len(reader), "reading pictures")
        bad += [_without(str(one), folder) for one in reader.strays()]
        sampler.fill()
        kind, notes = KINDS[reader.kind], tuple(_without(note, folder) for note in reader.notes)
    if not splits:
        first = f" First of {len(bad)} problems: {bad[0]}" if bad else ""
        raise TatorError(f"There is no picture in it that can be read.{first}")
    report = None
    if project is not None:
        request = DataImport(path=root, kind=kind, project=project)
        report = Importer(request, settings, progress).run(dry_run=True).as_json()
        report["notes"] = [_without(note, folder) for note in report["notes"]]
    return Look(
        "", str(root), kind, dict(classes), dict(sorted(splits.items())), tuple(sampler.samples), tuple(bad[:MOST_BAD]),
        len(bad), notes, project, report,
    )  # fmt: skip


def _unpacked(
    archive: Path, place: Path, settings: Settings, progress: Callable[[int, int, str], None]
) -> tuple[BadLine, ...]:
    """Unpack an archive that is not unpacked yet; what was left out of it."""
    if place.exists():
        return ()
    limits = ArchiveLimits(total_bytes=UNPACKED_TIMES * settings.upload_max_bytes)
    return unpack(
        archive, place, limits, lambda done, total: progress(done >> 20, total >> 20, "unpacking, MiB")
    ).skipped


def _without(sentence: str, folder: Path) -> str:
    """A sentence without the server's own path."""
    return sentence.replace(f"{folder / UNPACKED}/", "").replace(f"{folder}/", "").replace(str(folder), "it")


def look_at_set(record: DatasetRecord, folder: Path, settings: Settings) -> Look:
    """Some pictures of a data set of the registry, kept in a folder."""
    try:
        if record.type not in READABLE:
            raise TatorError("Pictures are shown of YOLO and COCO data sets.")
        path = Path(record.path)
        with closing(open_dataset(path, record.type.removeprefix("yolo-"))) as reader:
            sampler = Sampler(folder / "samples", max_pixels=settings.image_max_pixels)
            sampler.see_some(reader.pictures())
        look = Look("", record.path, samples=tuple(sampler.samples))
    except TatorError as error:
        look = Look(error=str(error))
    look.write(folder)
    return look


def states_file(home: Path) -> Path:
    """Where the last look at all data sets is kept."""
    return home / "run" / "dataset-states.json"


def look_at_states(settings: Settings) -> dict[str, Any]:
    """Compare every data set with its record; one that stands as it stood at the last look is not read again.

    Returns:
        State by id, with the fingerprint that it is true for; also in `states_file`.
    """
    registry, file = DatasetRegistry(settings.home), states_file(settings.home)
    before = read_states(settings.home)
    found: dict[str, Any] = {}
    for record in registry.list():
        path = Path(record.path)
        now = fingerprint_of(path) if path.exists() else ""
        known = before.get(record.id)
        if known and known["fingerprint"] == now and known["signature"] == record.signature:
            found[record.id] = known
        else:
            state = registry.check(record)
            found[record.id] = {"state": state, "fingerprint": now, "signature": record.signature}
        write_durably(file, json.dumps({**before, **found}).encode())
    write_durably(file, json.dumps(found).encode())
    return found


def read_states(home: Path) -> dict[str, Any]:
    """The last look at all data sets; empty before the first."""
    try:
        return dict(json.loads(states_file(home).read_bytes()))
    except (OSError, ValueError):
        return {}


def take(what: str, given: Sequence[str], settings: Settings) -> None:
    """Take a look: ``upload FOLDER [PROJECT]``, ``set ID FOLDER`` or ``states``."""
    if what == "upload":
        look_at_upload(Path(given[0]), int(given[1]) if len(given) > 1 else None, settings)
    elif what == "set":
        look_at_set(DatasetRegistry(settings.home).get(given[0]), Path(given[1]), settings)
    else:
        look_at_states(settings)


if __name__ == "__main__":
    if hasattr(os, "nice"):
        os.nice(10)
    take(sys.argv[1], sys.argv[2:], Settings())
