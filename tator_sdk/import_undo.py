"""Undoing an import: exactly what it added goes, and nothing that people have worked on since."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any
from urllib.parse import unquote

from tator_sdk import bulk
from tator_sdk.bulk import BulkApi
from tator_sdk.import_record import ImportRecord, ImportRecords, mark_of
from tator_sdk.matching import version_of
from tator_sdk.requests import DataImport
from tator_sdk.settings import Settings
from tator_sdk.studio import StudioError
from tator_sdk.untouched import FIELDS, changed, drafted, worked_on

DELETED_TOGETHER = 200


@dataclass
class Undone:
    """What an undo found, or did.

    Attributes:
        tasks: that the import made and nobody has worked on.
        annotations: that it added to tasks which were there, and that nobody has changed, or is changing.
        predictions: that it added to tasks which were there.
        kept: tasks with work of people since; they stay as they are.
    """

    tasks: list[int] = field(default_factory=list)
    annotations: list[int] = field(default_factory=list)
    predictions: int = 0
    kept: list[int] = field(default_factory=list)

    @property
    def nothing(self) -> bool:
        """Whether there is nothing to delete."""
        return not (self.tasks or self.annotations or self.predictions)


class ImportUndo:
    """Takes back one import."""

    def __init__(self, settings: Settings, import_id: str) -> None:
        """Look up the record; Label Studio is not asked yet.

        Raises:
            TatorError: there is no record of that id, or no token.
        """
        self._records = ImportRecords(settings)
        self.record: ImportRecord = self._records.get(import_id)
        self._request = DataImport.model_validate(self.record.request)
        self._api: BulkApi = bulk.open_bulk(settings)

    def find(self) -> Undone:
        """What would be deleted, and what would stay.

        Raises:
            StudioError: Label Studio refuses, or does not answer.
        """
        found = Undone()
        for task in self._api.tasks(self.record.project, *FIELDS):
            if self._is_mine(task):
                (found.kept if worked_on(task, self.record.number) else found.tasks).append(int(task["id"]))
                continue
            ours = [one for one in task.get("annotations") or [] if one.get("import_id") == self.record.number]
            unsaved = self._drafted(int(task["id"])) if ours and task.get("draft_exists") else set()
            for annotation in ours:
                if changed(annotation) or int(annotation["id"]) in unsaved:
                    found.kept.append(int(task["id"]))
                else:
                    found.annotations.append(int(annotation["id"]))
        if self._request.match and self._request.target == "predictions":
            version = version_of(self._request, self.record)
            found.predictions = self._api.prediction_count(self.record.project, version)
        return found

    def delete(self, found: Undone, progress: Callable[[int, int], None] = lambda done, total: None) -> Undone:
        """Delete what was found; each task and each annotation is looked at once more right before.

        Raises:
            StudioError: Label Studio refuses, or does not answer.
            TatorError: an import into the project, or another undo there, is running.
        """
        with self._records.alone(self.record.project):
            return self._delete(found, progress)

    def _delete(self, found: Undone, progress: Callable[[int, int], None]) -> Undone:
        done = Undone(kept=list(found.kept))
        total = len(found.tasks) + len(found.annotations)
        for chunk in _chunks(sorted(found.tasks)):
            self._delete_chunk(chunk, done)
            progress(len(done.tasks), total)
        for number in found.annotations:
            self._delete_annotation(number, done)
            progress(len(done.tasks) + len(done.annotations), total)
        if found.predictions:
            version = {"model_version": version_of(self._request, self.record)}
            self._api.delete(f"/api/projects/{self.record.project}/model-versions/", version)
            done.predictions = found.predictions
        self._records.close(self.record, "undone", {**self.record.summary, "kept": done.kept})
        return done

    def _delete_annotation(self, number: int, done: Undone) -> None:
        try:
            now = self._api.get(f"/api/annotations/{number}/")
        except StudioError as error:
            if error.status != 404:
                raise
            return  # somebody deleted it
        if changed(now) or number in self._drafted(int(now["task"])):
            done.kept.append(int(now["task"]))
            return
        self._api.delete(f"/api/annotations/{number}/")
        done.annotations.append(number)

    def _drafted(self, task: int) -> set[int]:
        """Annotations of a task that somebody has unsaved changes on; they would go with them."""
        return drafted(self._api.get(f"/api/tasks/{task}/drafts"))

    def _delete_chunk(self, chunk: Sequence[int], done: Undone) -> None:
        column = {"filter": "filter:tasks:id", "operator": "in", "type": "Number"}
        between = {**column, "value": {"min": chunk[0], "max": chunk[-1]}}
        query = {"filters": {"conjunction": "and", "items": [between]}}
        wanted, addresses = [], []
        for task in self._api.tasks(self.record.project, *FIELDS, query=query):
            if int(task["id"]) not in chunk or not self._is_mine(task):
                continue
            if worked_on(task, self.record.number):
                done.kept.append(int(task["id"]))
                continue
            wanted.append(int(task["id"]))
            addresses += [value for value in task["data"].values() if isinstance(value, str)]
        self._api.delete_tasks(self.record.project, wanted)
        done.tasks += wanted
        self._delete_uploads({unquote(address) for address in addresses if address.startswith("/data/upload/")})

    def _delete_uploads(self, addresses: set[str]) -> None:
        if addresses:
            path = f"/api/projects/{self.record.project}/file-uploads"
            rows = self._api.get(path, all="true")
            numbers = [int(row["id"]) for row in rows if f"/data/{row['file']}" in addresses]
            if numbers:  # without numbers Label Studio deletes every upload of the project
                self._api.delete(path, {"file_upload_ids": numbers})

    def _is_mine(self, task: Mapping[str, Any]) -> bool:
        mark = mark_of(task)
        return mark is not None and mark["import"] == self.record.id


def _chunks(numbers: Sequence[int]) -> Iterator[list[int]]:
    rest = iter(numbers)
    while chunk := list(islice(rest, DELETED_TOGETHER)):
        yield chunk
