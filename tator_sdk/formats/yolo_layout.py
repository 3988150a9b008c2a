"""Where the pictures and the label files of a YOLO data set lie, and which split each folder is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tator_sdk.formats.dataset import DatasetError
from tator_sdk.formats.names import DataYaml
from tator_sdk.formats.pictures import is_picture, walk

SPLITS = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test",
    "testing": "test",
}  # fmt: skip
LABELS = "labels"
IMAGES = "images"


@dataclass(frozen=True)
class PictureFolder:
    """Pictures of one folder, those in folders below it aside.

    Attributes:
        folder: of the pictures.
        labels: folder of their label files.
        prefix: of the pictures' names in the data set; empty, or ending with ``/``.
        split: ``train``, ``val``, ``test``, or empty.
        files: the pictures' names, in order.
    """

    folder: Path
    labels: Path
    prefix: str
    split: str
    files: tuple[str, ...]


@dataclass(frozen=True)
class Layout:
    """A data set's folders, found again at each pass: pictures may still arrive.

    Attributes:
        root: of the data set, or the folder of its pictures.
        labels: folder of the label files, where it was given.
        yaml: the ``data.yaml`` whose entries say where the splits lie; None for a search of the folder.
        inside: folder that no entry of the file may lead out of; None where any may be read.
    """

    root: Path
    labels: Path | None = None
    yaml: DataYaml | None = None
    inside: Path | None = None

    def folders(self) -> Iterator[PictureFolder]:
        """Folders with pictures, in an order that is the same every time; no picture twice."""
        if self.yaml is None:
            yield from self._searched(self.root)
        else:
            yield from self._named(self.yaml)

    def label_trees(self) -> Iterator[Path]:
        """Folders that hold label files, each once, whether or not it has pictures beside."""
        if self.labels is not None:
            yield from (place for place, _ in walk(self.labels))
            return
        seen: set[Path] = set()
        for found in self.folders():
            if found.labels not in seen:
                seen.add(found.labels)
                yield found.labels
        if self.yaml is None:
            for place, _ in walk(self.root):
                if LABELS in place.relative_to(self.root).parts and place not in seen:
                    seen.add(place)
                    yield place

    def remarks(self) -> Iterator[str]:
        """Entries of the ``data.yaml`` that lead nowhere, and pictures that belong to nothing; in sentences."""
        if self.yaml is not None:
            for split, entries in self.yaml.splits.items():
                for entry in entries:
                    if self._place(self.yaml, entry) is None:
                        yield f"{self.yaml.path} names {entry!r} for {split}, which is not there."
        known: dict[Path, int] = {}
        for one in self.folders():
            known[one.folder.resolve()] = known.get(one.folder.resolve(), 0) + len(one.files)
        for place, files in walk(self.root):
            outside = sum(map(is_picture, files)) - known.get(place.resolve(), 0)
            if outside > 0:
                yield f"Pictures in {place} that belong to no part of the data set, and are left out: {outside}."

    def _searched(
        self, root: Path, prefix: str = "", split: str = "", others: frozenset[Path] = frozenset()
    ) -> Iterator[PictureFolder]:
        """Folders below a root; where some are called ``images``, only those. ``others`` are roots of their own."""
        places = []
        for place, files in walk(root):
            pictures = tuple(name for name in files if is_picture(name))
            parts = place.relative_to(root).parts
            foreign = others and any(place.resolve().is_relative_to(other) for other in others)
            if pictures and LABELS not in parts and not foreign:
                places.append((place, parts, pictures))
        places = [one for one in places if IMAGES in one[1]] or places
        short = [_without_images(parts) for _, parts, _ in places]
        plain = len(set(short)) == len(short)  # else a name would be that of two pictures
        for (place, parts, pictures), name in zip(places, short, strict=True):
            inner = name if plain else "".join(f"{part}/" for part in parts)
            yield PictureFolder(place, self._labels_of(place, root), prefix + inner, split or split_of(parts), pictures)

    def _labels_of(self, place: Path, root: Path) -> Path:
        if self.labels is not None:
            return self.labels / place.relative_to(root)
        return labels_beside(place)

    def _named(self, yaml: DataYaml) -> Iterator[PictureFolder]:
        places: dict[Path, tuple[str, Path]] = {}
        for split, entries in yaml.splits.items():
            for entry in entries:
                if (place := self._place(yaml, entry)) is not None:
                    places.setdefault(place.resolve(), (split, place))  # a folder that is named twice counts once
        if not places:
            yield from self._searched(self.root)
            return
        taken: dict[str, int] = {}
        listed: set[Path] = set()
        for real, (split, place) in places.items():
            taken[split] = taken.get(split, 0) + 1
            prefix = f"{split}/" if taken[split] == 1 else f"{split}-{taken[split]}/"
            if place.is_dir():
                others = frozenset(other for other in places if other != real and other.is_relative_to(real))
                yield from self._searched(place, prefix, split, others)
            else:
                yield from self._listed(place, prefix, split, listed)

    def _place(self, yaml: DataYaml, entry: str) -> Path | None:
        """What an entry means: below ``path``, else below the file's folder; ``../`` of Roboflow's files aside."""
        beside = yaml.path.parent
        bases = [beside / yaml.base, beside] if yaml.base else [beside]
        for base in bases:
            for word in (entry, entry.removeprefix("../")):
                place = base / word
                if place.exists() and self._may_read(place):
                    return place
        return None

    def _may_read(self, path: Path) -> bool:
        return self.inside is None or path.resolve().is_relative_to(self.inside.resolve())

    def _listed(self, file: Path, prefix: str, split: str, seen: set[Path]) -> Iterator[PictureFolder]:
        """Pictures that a ``.txt`` names, one a line; a folder's stand together where their lines do."""
        group: list[str] = []
        folder: Path | None = None
        prefixes: dict[Path, str] = {}
        for path in listed_paths(file):
            if path in seen or not self._may_read(path):
                continue
            seen.add(path)
            if folder is not None and path.parent != folder:
                yield self._group(folder, group, file, prefix, split, prefixes)
                group = []
            folder = path.parent
            group.append(path.name)
        if folder is not None:
            yield self._group(folder, group, file, prefix, split, prefixes)

    @staticmethod
    def _group(
        folder: Path, files: Sequence[str], file: Path, prefix: str, split: str, prefixes: dict[Path, str]
    ) -> PictureFolder:
        if folder not in prefixes:
            real, root = folder.resolve(), file.parent.resolve()
            short = _without_images(real.relative_to(root).parts) if real.is_relative_to(root) else f"{folder.name}/"
            number = 1
            while (name := short if number == 1 else f"{short.rstrip('/')}-{number}/") in prefixes.values():
                number += 1
            prefixes[folder] = name
        return PictureFolder(folder, labels_beside(folder), prefix + prefixes[folder], split, tuple(files))


def _without_images(parts: Sequence[str]) -> str:
    """``images/train`` and ``train/images`` → ``train/``."""
    left = list(parts)
    if IMAGES in left:
        left.remove(IMAGES)
    return "".join(f"{part}/" for part in left)


def listed_paths(file: Path) -> Iterator[Path]:
    """Paths in a list of pictures; relative ones begin at the list's own folder."""
    with file.open(encoding="utf-8-sig", errors="replace") as lines:
        for line in lines:
            if line.strip():
                yield file.parent / line.strip()


def labels_beside(place: Path) -> Path:
    """Folder of the label files: ``labels`` in the place of ``images`` (ultralytics' rule), or beside the pictures."""
    parts = list(place.absolute().parts)
    if IMAGES in parts:
        last = len(parts) - 1 - parts[::-1].index(IMAGES)
        twin = Path(*parts[:last], LABELS, *parts[last + 1 :])
        if twin.is_dir():
            return twin
    return place / LABELS if (place / LABELS).is_dir() else place


def split_of(parts: Sequence[str]) -> str:
    """The split that folders' names say; empty where they say none."""
    return next((SPLITS[part.lower()] for part in parts if part.lower() in SPLITS), "")


def require_folder(path: Path) -> Path:
    """The path itself.

    Raises:
        DatasetError: there is no such folder.
    """
    if not path.is_dir():
        raise DatasetError(f"There is no folder {path}.")
    return path
