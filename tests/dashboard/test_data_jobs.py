"""Jobs on data against a Label Studio in memory: imported, seen, and taken back by the same code as the commands'."""

from __future__ import annotations

from pathlib import Path

import pytest

from tator_sdk.data_requests import Undo
from tator_sdk.errors import TatorError
from tator_sdk.requests import DataImport
from tator_sdk.settings import Settings
from tests.fake_studio import FakeLabelStudio
from training.importing import import_dataset
from training.job import LocalJob
from training.undo import undo

CONFIG = (
    '<View><Image name="image" value="$image"/><RectangleLabels name="box" toName="image"><Label value="Car"/>'
    "</RectangleLabels></View>"
)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeLabelStudio:
    made = FakeLabelStudio(CONFIG)
    monkeypatch.setattr("tator_sdk.bulk.open_bulk", lambda _: made.api())
    monkeypatch.setattr("tator_sdk.in_flight.SETTLE_SECONDS", 0.0)
    return made


def test_an_import_is_seen_and_taken_back(fake: FakeLabelStudio, tmp_path: Path) -> None:
    from PIL import Image

    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "classes.txt").write_text("Car\n")
    for number in range(3):
        Image.new("RGB", (40, 30), (number, 0, 0)).save(tmp_path / "set" / f"{number}.png")
        (tmp_path / "set" / f"{number}.txt").write_text("0 0.5 0.5 0.2 0.2\nrubbish\n")
    settings = Settings()
    job = LocalJob(settings, "import-7-abcd")
    report = import_dataset(DataImport(path=tmp_path / "set", kind="yolo", project=7), settings, job)
    assert (report["created"], report["regions"], report["bad"]) == (3, {"Car": 3}, 3) and len(fake.tasks) == 3
    look = undo(Undo(of=report["id"], project=7, dry_run=True), settings, job)
    assert (look["tasks"], len(fake.tasks)) == (3, 3)
    with pytest.raises(TatorError, match="another project"):
        undo(Undo(of=report["id"], project=8), settings, job)
    assert undo(Undo(of=report["id"], project=7), settings, job)["tasks"] == 3 and not fake.tasks


@pytest.mark.parametrize("of", ["tweak-3-7f2a", "relabel-3-7f2a", "prelabel-3-7f2a"])
def test_what_was_done_to_another_project_is_not_taken_back(of: str) -> None:
    settings = Settings()
    with pytest.raises(TatorError, match="another project"):
        undo(Undo(of=of, project=1), settings, LocalJob(settings, "undo-1-abcd"))
