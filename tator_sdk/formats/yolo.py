"""YOLO folders: pictures, one text file of shapes for each, and the classes' names."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from tator_sdk.formats.archive import sealed_around
from tator_sdk.formats.dataset import BadLine, DatasetError, LabelledPicture
from tator_sdk.formats.names import LABEL_MAPS, YAML, DataYaml, find_names, find_yaml, read_yaml
from tator_sdk.formats.yolo_layout import Layout, PictureFolder, require_folder
from tator_sdk.formats.yolo_lines import numbered_lines, read_lines
from tator_sdk.images import ImageError, file_size_wh

KINDS = ("detect", "segment", "obb")
SAMPLED_FILES = 200
FOUR_POINTS = 9  # words of a line: its class, and four points


class YoloReader:
    """A YOLO data set, read a picture at a time; `DatasetReader`.

    Splits are found in all their usual shapes: ``images/train`` with ``labels/train``, ``train/images`` with
    ``train/labels``, labels beside the pictures, or where a ``data.yaml`` says.
    """

    def __init__(
        self,
        root: Path,
        *,
        labels: Path | None = None,
        names: Path | None = None,
        kind: str = "auto",
        inside: Path | None = None,
    ) -> None:
        """Find the data set.

        Args:
            root: its folder, the folder of its pictures, or its ``data.yaml``.
            labels: folder of the label files, with the same folders in it as that of the pictures. Default: found.
            names: file of the classes' names. Default: found.
            kind: ``detect``, ``segment``, ``obb``, or ``auto``: what its metadata says, else a box for four numbers
                and a polygon for more.
            inside: folder that nothing in the set's metadata may lead out of, for sets from an archive. Default: the
                sealed one around it, if there is one.

        Raises:
            DatasetError: there is no such folder, no picture in it, or no names.
        """
        if root.suffix in YAML and root.is_file():
            names = names or root
            root = root.parent
        require_folder(root)
        inside = inside or sealed_around(root)
        if labels is not None:
            require_folder(labels)
        self.classes = tuple(find_names(root, names, inside))
        yaml, notes = _metadata(root, names, self.classes)
        entries = yaml if yaml and yaml.splits and labels is None and yaml.path.parent == root else None
        self._layout = Layout(root, labels, entries, inside)
        self._unreadable: list[BadLine] = []
        self.kind = kind if kind in KINDS else yaml.task if yaml and yaml.task in KINDS else "auto"
        self._count: int | None = None
        if not any(one.files for one in self._layout.folders()):
            raise DatasetError(f"There are no pictures in {root}.")
        self.notes = (*notes, *self._layout.remarks())
        if self.kind == "auto" and self._only_four_points():
            self.notes += (
                f"Every line in {root} has four points: they are read as polygons; if they are oriented boxes, "
                "`tator import obb` reads them as such.",
            )

    def __len__(self) -> int:
        if self._count is None:
            self._count = sum(len(one.files) for one in self._layout.folders())
        return self._count

    def pictures(self) -> Iterator[LabelledPicture]:
        """Each picture; one without a label file has no shapes. See `DatasetReader`."""
        self._unreadable.clear()
        names: dict[str, str] = {}
        for place in self._layout.folders():
            names.clear()
            for file in place.files:
                path, labels = place.folder / file, _label_file(place, file)
                try:
                    size_wh = file_size_wh(path)
                except ImageError as error:
                    self._unreadable.append(_unreadable(path, labels, _clause(error)))
                    continue
                shapes, bad = read_lines(labels, self.kind, self.classes, size_wh) if labels.is_file() else ((), ())
                twin = names.setdefault(labels.stem, file)
                if twin != file and labels.is_file():
                    reason = f"its name is that of two pictures, {twin} and {file}: both have its shapes"
                    bad += (BadLine(labels, 0, reason),)
                yield LabelledPicture(path, place.prefix + file, size_wh, shapes, place.split, bad)

    def strays(self) -> Iterator[BadLine]:
        """Label files without a picture, and pictures that cannot be read. See `DatasetReader`."""
        yield from self._unreadable
        stems: dict[Path, set[str]] = {}
        for place in self._layout.folders():
            stems.setdefault(place.labels, set()).update(_label_file(place, file).stem for file in place.files)
        for folder in self._layout.label_trees():
            if not folder.is_dir():
                continue
            for path in sorted(folder.iterdir()):
                if path.suffix == ".txt" and path.name not in LABEL_MAPS and path.stem not in stems.get(folder, ()):
                    lines = sum(1 for _ in numbered_lines(path))
                    if lines:
                        yield BadLine(path, 0, f"there is no picture of this name; its {_count(lines)} left out")

    def close(self) -> None:
        """Nothing is held open."""

    def _only_four_points(self) -> bool:
        """Whether the first label files have nothing but lines of four points, which two kinds have."""
        lengths: set[int] = set()
        files = (_label_file(place, file) for place in self._layout.folders() for file in place.files)
        for path in islice((path for path in files if path.is_file()), SAMPLED_FILES):
            lengths.update(len(text.split()) for _, text in islice(numbered_lines(path), 100))
        return lengths == {FOUR_POINTS}


def _metadata(root: Path, names: Path | None, classes: tuple[str, ...]) -> tuple[DataYaml | None, list[str]]:
    """The ``data.yaml`` of a data set, and what is odd about it."""
    path = names if names and names.suffix in YAML else find_yaml(root)
    if path is None:
        return None, []
    try:
        yaml = read_yaml(path)
    except DatasetError as error:  # the names came from another file
        return None, [str(error)]
    if yaml.names != classes:
        return yaml, [f"{path} names other classes than the file that was taken: {', '.join(classes[:8])}, …"]
    return yaml, []


def _label_file(place: PictureFolder, file: str) -> Path:
    return place.labels / (file.rpartition(".")[0] + ".txt")


def _unreadable(path: Path, labels: Path, reason: str) -> BadLine:
    if not path.exists():
        reason = "the picture is not there"
    lines = sum(1 for _ in numbered_lines(labels)) if labels.is_file() else 0
    return BadLine(path, 0, f"{reason}; its {_count(lines)} left out" if lines else reason)


def _clause(error: Exception) -> str:
    """A sentence as part of a longer one."""
    said = str(error).rstrip(".")
    return said[:1].lower() + said[1:]


def _count(lines: int) -> str:
    return "1 line is" if lines == 1 else f"{lines} lines are"
