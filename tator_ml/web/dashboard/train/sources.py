"""What a training can learn from: projects and data sets that the visitor may see, with what is known of them."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tator_ml.learning.stores import example_store
from tator_ml.web.access import Visitor
from tator_ml.web.dashboard.data.parts import may_see_set
from tator_ml.web.dashboard.page import Dashboard
from tator_sdk.datasets import READABLE, DatasetRecord, DatasetRegistry

YOLO = frozenset(one for one in READABLE if one.startswith("yolo"))
MOST_CLASSES = 12


@dataclass(frozen=True)
class Source:
    """Something to learn from.

    Attributes:
        key: in forms: ``project:3``, ``set:cars``.
        name: for people.
        project: of Label Studio; None for a data set.
        path: of a data set.
        classes: labelled objects of each, as far as they are known without a look.
        pictures: of a data set.
    """

    key: str
    name: str
    project: int | None = None
    path: Path | None = None
    classes: Mapping[str, int] = field(default_factory=dict, hash=False)
    pictures: int | None = None

    @property
    def label(self) -> str:
        """Its name with what is known of it."""
        if not self.classes:
            return f"{self.name}, nothing known of it yet" if self.project else self.name
        objects = sum(self.classes.values())
        said = f"{self.name}: {objects} object{'' if objects == 1 else 's'} of {len(self.classes)} classes"
        return f"{said} in {self.pictures} pictures" if self.pictures is not None else said

    @property
    def most(self) -> list[tuple[str, int]]:
        """Its commonest classes."""
        return sorted(self.classes.items(), key=lambda one: -one[1])[:MOST_CLASSES]

    def fixed(self, kind: str) -> dict[str, Any]:
        """Fields of a training's request that say so."""
        if kind == "clip":
            return {"project": self.project, "images_path": self.path}
        return {"project": self.project, "dataset": None if self.path is None else str(self.path)}


def sources(dashboard: Dashboard, who: Visitor, kind: str) -> list[Source]:
    """Projects, then data sets that this kind of training can read."""
    with closing(example_store(dashboard.settings)) as examples:
        counts = examples.counts()
    titles = dashboard.titles
    known = who.projects if who.projects is not None else {*titles.all(), *counts, *dashboard.services.projects.known()}
    projects = [
        Source(f"project:{number}", titles.named(number), number, classes=counts.get(number, {}))
        for number in sorted(known)
    ]
    projects.sort(key=lambda one: not one.classes)  # those with something to learn first
    sets = [
        Source(f"set:{one.id}", f"data set {one.id}", None, Path(one.path), one.classes, one.pictures)
        for one in DatasetRegistry(dashboard.settings.home).list()
        if _readable(one, kind) and may_see_set(who, one)
    ]
    return projects + sets


def _readable(record: DatasetRecord, kind: str) -> bool:
    if kind == "clip":
        return record.type in YOLO and Path(record.path).is_dir()
    return record.type in READABLE or (kind == "sam3" and record.type == "sam3")
