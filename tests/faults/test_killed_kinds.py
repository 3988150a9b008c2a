"""Jobs whose process is killed with -9 in the middle, of the kinds that no other test kills."""

from __future__ import annotations

import base64
import json
import os
import signal
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from tator_ml.jobs import JobRecord
from tator_ml.launch import launch
from tator_ml.launch import preview as look_before
from tator_ml.quality.store import quality_store
from tator_sdk.data_requests import DataExport, Registration, Undo
from tator_sdk.datasets import DatasetRegistry
from tator_sdk.errors import TatorError
from tator_sdk.formats import open_dataset
from tator_sdk.import_record import ImportRecords
from tator_sdk.requests import HeadTraining, JobRequest, QualityReading
from tests.fake_studio import FakeLabelStudio
from tests.faults.studio import FailingStudio
from tests.formats.material import folder, picture
from tests.jobs.conftest import Jobs, until
from training.exporting import export_project
from training.job import LocalJob

pytestmark = pytest.mark.faults

CONFIG = (
    '<View><Image name="image" value="$image"/><RectangleLabels name="box" toName="image"><Label value="Car"/>'
    "</RectangleLabels></View>"
)


def box(number: int) -> dict[str, Any]:
    value = {"x": 10, "y": 20, "width": 30, "height": 40, "rotation": 0, "rectanglelabels": ["Car"]}
    return {
        "id": f"r{number}", "type": "rectanglelabels", "from_name": "box", "to_name": "image", "value": value,
        "original_width": 100, "original_height": 80,
    }  # fmt: skip


def studio_with(count: int) -> FakeLabelStudio:
    fake = FakeLabelStudio(CONFIG)
    for number in range(1, count + 1):
        data = base64.b64encode(picture((100, 80)) + bytes([number % 251, number // 251])).decode()
        at = "2026-01-02T03:04:05.000000Z"
        row = {"id": number, "result": [box(number)], "created_at": at, "updated_at": at, "completed_by": 1}
        fake.tasks[number] = {
            "id": number, "data": {"image": f"data:image/png;base64,{data}"}, "meta": {}, "annotations": [row],
            "predictions": [],
        }  # fmt: skip
    return fake


@dataclass
class Killing:
    """A worker over a Label Studio; its job's process is killed before one request of it is answered."""

    jobs: Jobs
    studio: FailingStudio
    killed: int = 0

    def at(self, method: str, path: str, nth: int) -> None:
        """Kill at the nth request to a path."""
        seen = []

        def watch(said: str, where: str) -> None:
            if (said, where.rstrip("/")) == (method, path):
                seen.append(where)
                if len(seen) == nth:
                    self.kill()

        self.studio.watch = watch

    def kill(self) -> None:
        (owner,) = [
            json.loads(raw)["pid"]
            for one in self.jobs.records.list()
            if one.status == "running" and (raw := self.jobs.connection.hget(f"tator:job:{one.id}", "owner"))
        ]
        os.kill(owner, signal.SIGKILL)
        self.killed += 1

    def done(self, request: JobRequest) -> JobRecord:
        """The job of a request, once it has ended in its second attempt."""
        (made,) = launch(self.jobs.settings, request)
        record = self.jobs.ends(made.id, 60)
        assert (record.status, record.attempt, self.killed) == ("done", 2, 1), (record.error, self.killed)
        assert "its process died" in self.jobs.records.log_lines(made.id)
        return record


@contextmanager
def killing(jobs: Jobs, fake: FakeLabelStudio) -> Iterator[Killing]:
    studio = FailingStudio(fake)
    with studio.served() as url:
        jobs.settings = jobs.settings.model_copy(update={"label_studio_url": url})
        jobs.worker(LABEL_STUDIO_URL=url, LABEL_STUDIO_API_KEY="legacy")
        yield Killing(jobs, studio)


def test_export(jobs: Jobs, tmp_path: Path) -> None:
    output = tmp_path / "out"
    with killing(jobs, studio_with(150)) as one:
        one.at("GET", "/api/tasks", 2)  # a hundred pictures are written
        record = one.done(DataExport(project=7, output=output, form="yolo"))
    assert record.result is not None and sum(record.result["pictures"].values()) == 150
    assert len(list(open_dataset(output).pictures())) == 150
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith((".", "out"))] == ["out"], "half a set"
    assert [entry.id for entry in DatasetRegistry(jobs.settings.home).list()] == [record.result["dataset"]]


def test_an_export_that_was_written_and_not_entered(jobs: Jobs, tmp_path: Path) -> None:
    output, registry = tmp_path / "out", DatasetRegistry(jobs.settings.home)
    request = DataExport(project=7, output=output, form="yolo")
    with killing(jobs, studio_with(3)) as one:
        settings = one.jobs.settings.model_copy(update={"label_studio_api_key": SecretStr("legacy")})
        job = LocalJob(settings, "export-7-abcd")
        first = export_project(request, settings, job)
        registry.forget(registry.get(first["dataset"]))
        again = export_project(request, settings, job)
        with pytest.raises(TatorError, match="There is something at"):
            export_project(request, settings, LocalJob(settings, "export-7-other"))
    assert again["pictures"] == first["pictures"] and again["classes"] == first["classes"]
    assert [entry.id for entry in registry.list()] == [again["dataset"]]


def test_quality(jobs: Jobs) -> None:
    with killing(jobs, studio_with(1005)) as one:
        one.at("GET", "/api/tasks", 2)  # a thousand tasks are read
        record = one.done(QualityReading(project=7))
    assert record.result is not None and (record.result["annotations"], record.result["gone"]) == (1005, 0)
    with closing(quality_store(jobs.settings)) as store:
        assert len(store.known(7)) == 1005


def test_undo(jobs: Jobs) -> None:
    fake = studio_with(450)
    imported = ImportRecords(jobs.settings).begin(7, {"kind": "yolo", "path": "set", "project": 7})
    for number, task in fake.tasks.items():
        task["annotations"] = []
        if number <= 400:
            task["meta"] = {"tator": {"import": imported.id, "key": str(number)}}
    with killing(jobs, fake) as one:
        one.at("POST", "/api/dm/actions", 2)
        record = one.done(Undo(of=imported.id, project=7))
    assert sorted(fake.tasks) == list(range(401, 451)), "all of the import went, and nothing else"
    assert record.result is not None and record.result["kept_count"] == 0


def test_register_and_preview(jobs: Jobs, tmp_path: Path) -> None:
    made = folder(tmp_path / "set", {"classes.txt": "Car", "images/0.png": "", "labels/0.txt": "0 0.5 0.5 0.2 0.4"})
    content = (made / "images" / "0.png").read_bytes()
    for number in range(1, 400):
        (made / "images" / f"{number}.png").write_bytes(content + number.to_bytes(2, "big"))
        os.link(made / "labels" / "0.txt", made / "labels" / f"{number}.txt")
    jobs.worker()
    (entered,) = launch(jobs.settings, Registration(path=made))
    counted = look_before(jobs.settings, HeadTraining(images_path=made / "images"))
    for one in (entered, counted):
        until(lambda one=one: jobs.records.get(one.id).done > 0)
        Killing(jobs, FailingStudio(FakeLabelStudio())).kill()
        record = jobs.ends(one.id)
        assert (record.status, record.attempt) == ("done", 2), record.error
    (known,) = DatasetRegistry(jobs.settings.home).list()
    assert (known.pictures, known.classes) == (400, {"Car": 400})
    assert record.result is not None and record.result["pictures"] + record.result["held_out"] == 400
