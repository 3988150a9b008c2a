"""Names of a data set's classes, and the other entries of a ``data.yaml``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tator_sdk.formats.dataset import DatasetError

LABEL_MAPS = ("labelmap.txt", "classes.txt", "labels.txt", "data.yaml", "data.yml", "dataset.yaml", "dataset.yml")
YAML = frozenset({".yaml", ".yml"})
MOST_BYTES = 16 * 2**20
"""Of a file with names; a hundred thousand classes take a tenth."""
MOST_ALIASES = 32
"""Few enough that aliases within aliases cannot grow beyond any memory."""


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """PyYAML's safe loader, for files that somebody else wrote."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._aliases = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            self._aliases += 1
            if self._aliases > MOST_ALIASES:
                raise yaml.composer.ComposerError(None, None, "more aliases than a data set needs")
        return super().compose_node(parent, index)


@dataclass(frozen=True)
class DataYaml:
    """A ``data.yaml`` as far as Tator reads it (https://docs.ultralytics.com/datasets/detect).

    Attributes:
        path: of the file.
        names: of the classes, in the order of their indices.
        base: what ``path`` says the entries are relative to; empty where it says nothing.
        splits: entries of ``train``, ``val`` and ``test`` as they are written: folders, or ``.txt`` lists.
        task: ``detect``, ``segment`` or ``obb`` where the file says so (Tator's own do).
    """

    path: Path
    names: tuple[str, ...]
    base: str
    splits: dict[str, tuple[str, ...]]
    task: str


def find_names(folder: Path, named: Path | None = None, inside: Path | None = None) -> list[str]:
    """Names of the classes, in the order of their indices.

    Args:
        folder: of the pictures; the file is looked for there, up to two folders above, and in ``labels`` beside.
        named: the file itself, where it was given.
        inside: folder out of which nothing is looked for.

    Raises:
        DatasetError: no such file, or no names in it.
    """
    found = find_names_file(folder, named, inside)
    names = list(read_yaml(found).names) if found.suffix in YAML else _lines(found)
    if not names:
        raise DatasetError(f"{found} names no classes.")
    return names


def find_names_file(folder: Path, named: Path | None = None, inside: Path | None = None) -> Path:
    """The file that has the classes' names: see ``find_names``.

    Raises:
        DatasetError: there is none.
    """
    folders = (folder, folder / "labels", folder.parent, folder.parent / "labels", folder.parent.parent)
    candidates = (
        [named]
        if named
        else [
            place / name for place in folders if inside is None or place.is_relative_to(inside) for name in LABEL_MAPS
        ]
    )
    for path in candidates:
        if path.is_file():
            return path
    if named:
        raise DatasetError(f"There is no file {named} with the classes' names.")
    raise DatasetError(f"No class names beside {folder}: put a {LABEL_MAPS[0]} there, one name a line.")


def find_yaml(folder: Path) -> Path | None:
    """The ``data.yaml`` of a folder, under any of its usual names; None where it has none."""
    return next((folder / name for name in LABEL_MAPS if Path(name).suffix in YAML and (folder / name).is_file()), None)


def read_yaml(path: Path) -> DataYaml:
    """A ``data.yaml``.

    Raises:
        DatasetError: it is not YAML, or has no usable ``names``.
    """
    try:
        content = yaml.load(_text(path), _Loader)  # noqa: S506 - a safe loader
        names = content["names"]
        if isinstance(names, dict):  # indices may be written as text
            numbered = {int(index): name for index, name in names.items()}
            names = [numbered[index] for index in range(len(names))]  # a gap would move all that follow
        if not isinstance(names, list):
            raise TypeError("neither a list nor a mapping")
        if any(isinstance(name, (list, dict)) for name in names):  # a few aliases nested in each other fill any memory
            raise TypeError("names that are no text")
    except (yaml.YAMLError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise DatasetError(f"{path} has no readable `names`: a list, or a mapping from 0 on without a gap.") from error
    splits = {
        split: _entries(content.get(key)) for split, keys in SPLIT_KEYS.items() for key in keys if content.get(key)
    }
    task = str(content.get("task") or "")
    return DataYaml(path, tuple(str(name) for name in names), str(content.get("path") or ""), splits, task)


SPLIT_KEYS = {"train": ("train",), "val": ("validation", "valid", "val"), "test": ("test",)}


def _entries(written: Any) -> tuple[str, ...]:
    items = written if isinstance(written, list) else [written]
    return tuple(str(item) for item in items if item)


def _lines(path: Path) -> list[str]:
    try:
        return [line.strip() for line in _text(path).splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path} is not UTF-8 text; save it as such.") from error


def _text(path: Path) -> str:
    if path.stat().st_size > MOST_BYTES:
        raise DatasetError(f"{path} is larger than the {MOST_BYTES} bytes that a file of names may have.")
    return path.read_text("utf-8-sig")
