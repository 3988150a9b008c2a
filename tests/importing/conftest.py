"""Small data sets, and a project in a Label Studio in memory that takes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tator_sdk.formats.dataset import BadLine
from tator_sdk.importing import Importer, ImportReport
from tator_sdk.requests import DataImport
from tator_sdk.settings import Settings
from tests.fake_studio import FakeLabelStudio
from tests.formats.material import NAMES, folder

LABELS = "".join(f'<Label value="{name}"/>' for name in NAMES.split())
CONFIG = (
    f'<View><Image name="image" value="$image"/><RectangleLabels name="box" toName="image">{LABELS}</RectangleLabels>'
    f'<PolygonLabels name="outline" toName="image">{LABELS}</PolygonLabels></View>'
)
LINE = "0 0.5 0.5 0.2 0.4"
OUTLINE = "1 0.1 0.1 0.5 0.1 0.5 0.6"


@pytest.fixture
def studio(monkeypatch: pytest.MonkeyPatch) -> FakeLabelStudio:
    made = FakeLabelStudio(CONFIG, storages=[{"path": "/"}])
    monkeypatch.setattr("tator_sdk.bulk.open_bulk", lambda _: made.api())
    monkeypatch.setattr("tator_sdk.in_flight.SETTLE_SECONDS", 0.0)
    monkeypatch.setattr("tator_sdk.patience.WAITS_SECONDS", (0.0, 0.0))
    return made


@pytest.fixture
def yolo(tmp_path: Path) -> Path:
    """Three pictures: a box, a polygon, and nothing."""
    return folder(
        tmp_path / "root" / "set",
        {
            "classes.txt": NAMES,
            "images/a.png": "", "labels/a.txt": LINE,
            "images/b c.png": "", "labels/b c.txt": OUTLINE,
            "images/d.png": "", "labels/d.txt": "",
        },
    )  # fmt: skip


class Run:
    """An import with its bad lines."""

    def __init__(self, path: Path, dry_run: bool = False, kind: str = "yolo", project: int = 7, **more: Any) -> None:
        self.bad: list[BadLine] = []
        moments = more.pop("moments", lambda moment: None)
        request = DataImport.model_validate({"path": path, "kind": kind, "project": project, **more})
        self.importer = Importer(request, Settings(), bad=self.bad.append, moments=moments)
        self.report: ImportReport = self.importer.run(dry_run)
