"""A folder, a zip or a file → the reader for the data set that lies there."""

from __future__ import annotations

import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

from tator_sdk.formats.archive import unpack
from tator_sdk.formats.coco import CocoReader, find_coco_files
from tator_sdk.formats.dataset import BadLine, DatasetError, DatasetReader, LabelledPicture
from tator_sdk.formats.names import LABEL_MAPS, YAML, find_names_file
from tator_sdk.formats.pictures import walk
from tator_sdk.formats.yolo import KINDS, SAMPLED_FILES, YoloReader
from tator_sdk.formats.yolo_lines import numbered_lines

FEWEST_NUMBERS = 5  # of a line: the class, and a box
ANY_KIND = ("auto", "yolo", *KINDS, "coco")


def open_dataset(
    path: Path,
    kind: str | None = None,
    *,
    images: Path | None = None,
    labels: Path | None = None,
    names: Path | None = None,
    absent: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> DatasetReader:
    """Find out what lies at a path, and open it; ``close()`` the reader when you are done with it.

    Example::

        with closing(open_dataset(Path("set.zip"))) as reader:
            for picture in reader.pictures():
                print(picture.name, len(picture.shapes))

    Args:
        path: a folder, a zip, a COCO file, or a ``data.yaml``.
        kind: ``detect``, ``segment`` or ``obb``: what YOLO lines mean; ``yolo``, ``coco``: which of the two, where a
            folder holds both. Default, or ``auto``: as the data set's own metadata says, else YOLO before COCO.
        images: folder of a COCO file's pictures. Default: looked for around it.
        labels: folder of YOLO label files. Default: found.
        names: file of YOLO classes' names. Default: found.
        absent: of COCO, yield pictures whose file is not there too.
        progress: told the bytes unpacked or read so far and of how many, for a zip and then for each COCO file.

    Raises:
        DatasetError: nothing there can be used as a data set.
    """
    kind = kind or "auto"
    if kind not in ANY_KIND:
        raise DatasetError(f"There is no kind {kind!r} of data set; there are {', '.join(ANY_KIND)}.")
    if not path.exists():
        raise DatasetError(f"There is nothing at {path}.")
    if path.is_file() and path.suffix.lower() not in {".json", *YAML}:
        if not zipfile.is_zipfile(path):
            raise DatasetError(f"{path} is neither a folder, a zip, a COCO .json nor a data.yaml.")
        return UnpackedReader(path, kind, names, absent, progress)
    return _open(path, kind, images, labels, names, absent, None, progress)


class UnpackedReader:
    """A data set in a zip, unpacked to a temporary folder until it is closed; `DatasetReader`."""

    def __init__(
        self, archive: Path, kind: str, names: Path | None, absent: bool, progress: Callable[[int, int], None]
    ) -> None:
        """Unpack and open it.

        Raises:
            DatasetError: it cannot be unpacked, or holds no data set.
        """
        self._folder = tempfile.TemporaryDirectory(prefix="tator-zip-", ignore_cleanup_errors=True)
        try:
            unpacked = unpack(archive, Path(self._folder.name) / "set", progress=progress)
            self._skipped = unpacked.skipped
            root = dataset_root(unpacked.folder)
            try:
                self._reader = _open(root, kind, None, None, names, absent, unpacked.folder, progress)
            except DatasetError as error:
                raise DatasetError(f"In {archive}: {str(error).replace(self._folder.name, '…')}") from error
        except BaseException:
            self._folder.cleanup()
            raise
        self.classes, self.kind = self._reader.classes, self._reader.kind
        self.notes = tuple(note.replace(str(unpacked.folder), str(archive)) for note in self._reader.notes)

    def __len__(self) -> int:
        return len(self._reader)

    def pictures(self) -> Iterator[LabelledPicture]:
        """See `DatasetReader`."""
        return self._reader.pictures()

    def strays(self) -> Iterator[BadLine]:
        """Entries that were left out of the archive besides. See `DatasetReader`."""
        yield from self._skipped
        yield from self._reader.strays()

    def close(self) -> None:
        """Remove the temporary folder; the archive stays."""
        self._reader.close()
        shutil.rmtree(self._folder.name, ignore_errors=True)
        self._folder.cleanup()


def _open(
    path: Path, kind: str, images: Path | None, labels: Path | None, names: Path | None, absent: bool,
    inside: Path | None, progress: Callable[[int, int], None],
) -> DatasetReader:  # fmt: skip
    if path.suffix.lower() == ".json" and path.is_file():
        return CocoReader([path], images, absent, progress)
    yolo = kind if kind in KINDS else "auto"
    if path.is_file() or kind in {"yolo", *KINDS}:
        return YoloReader(path, labels=labels, names=names, kind=yolo, inside=inside)
    files = find_coco_files(path)
    if kind == "coco" or (files and not (labels or names or _looks_like_yolo(path))):
        if not files:
            raise DatasetError(f"There is no COCO file in {path}: a .json with images, annotations and categories.")
        return CocoReader(files, images, absent, progress)
    reader = YoloReader(path, labels=labels, names=names, kind=yolo, inside=inside)
    if files:
        reader.notes += (f"{path} holds a COCO file too, {files[0].name}; `tator import coco` reads that instead.",)
    return reader


def _looks_like_yolo(folder: Path) -> bool:
    """Whether there are names of classes, and a text file that begins with a row of numbers."""
    try:
        find_names_file(folder)
    except DatasetError:
        return False
    texts = (place / name for place, files in walk(folder) for name in files if name.endswith(".txt"))
    labels = (path for path in texts if path.name not in LABEL_MAPS)
    return any(_begins_with_numbers(path) for path in islice(labels, SAMPLED_FILES))


def _begins_with_numbers(path: Path) -> bool:
    words = next((text.split() for _, text in numbered_lines(path)), [])
    try:
        return len([float(word) for word in words]) >= FEWEST_NUMBERS
    except ValueError:
        return False


def dataset_root(folder: Path) -> Path:
    """The folder that holds the set of an unpacked archive, which often has a single one around everything."""
    while True:
        entries = [one for one in folder.iterdir() if one.name != "__MACOSX" and not one.name.startswith(".")]
        if len(entries) != 1 or not entries[0].is_dir() or entries[0].name in {"images", "train", "val", "test"}:
            return folder
        folder = entries[0]
