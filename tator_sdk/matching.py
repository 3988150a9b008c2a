"""Shapes onto the tasks that have their pictures already, known by file name."""

from __future__ import annotations

import json
import tempfile
import uuid
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Self

from tator_sdk.bulk import BulkApi
from tator_sdk.delivery import Item
from tator_sdk.formats.dataset import BadLine, LabelledPicture
from tator_sdk.import_record import ImportRecord
from tator_sdk.patience import patiently
from tator_sdk.picture_addresses import names_of_address
from tator_sdk.push import Moment, PredictionsOfVersion
from tator_sdk.requests import DataImport
from tator_sdk.settings import Settings
from tator_sdk.studio import StudioError

CONFLICT = 409


class Matching:
    """Adds annotations or predictions to tasks.

    An annotation carries a ``unique_id`` that is made from project, task and picture: Label Studio itself refuses a
    second one, so this is exactly once whatever happens. Predictions go through `PredictionsOfVersion`.

    Attributes:
        found: pictures that a task has.
    """

    def __init__(
        self, api: BulkApi, settings: Settings, request: DataImport, record: ImportRecord | None,
        moments: Callable[[Moment], None],
    ) -> None:  # fmt: skip
        """Read the names of all pictures of the project.

        Args:
            api: of Label Studio.
            settings: of this installation.
            request: of the import.
            record: of the import; None where nothing is to be changed.
            moments: of pushing predictions.

        Raises:
            StudioError: Label Studio refuses, or does not answer.
        """
        self.found = 0
        self._api, self._settings, self._request, self._record = api, settings, request, record
        self._moments = moments
        self._tasks: dict[str, set[int]] = {}
        self._taken: dict[int, str] = {}
        self._spool = tempfile.TemporaryFile()  # noqa: SIM115 - closed by __exit__
        self._offsets: dict[int, int] = {}
        self._created = self._there = 0
        for task in api.tasks(request.project, "id", "data"):
            for value in (task.get("data") or {}).values():
                if isinstance(value, str) and "/" in value:
                    for name in names_of_address(value):
                        self._tasks.setdefault(name, set()).add(int(task["id"]))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._spool.close()

    def has(self, picture: LabelledPicture, tell: Callable[[BadLine], None]) -> bool:
        """Whether exactly one task has the picture, and no other one its shapes there; if not, it is told why."""
        tasks = self._tasks.get(picture.path.name, set())
        if not tasks:
            reason = "no task of the project has a picture of this name"
        elif len(tasks) > 1:
            reason = f"several tasks have a picture of this name: {', '.join(map(str, sorted(tasks)[:5]))}"
        else:
            (task,) = tasks
            if not picture.shapes and not self._request.empty_as_annotation:
                return True  # nothing is put there
            other = self._taken.setdefault(task, picture.name)
            if other == picture.name:
                return True
            reason = f"task {task} has a picture of this name, and so has the data set twice: {other} was taken"
        tell(BadLine(picture.path, 0, reason))
        return False

    def add(self, items: Sequence[Item]) -> None:
        """Put shapes on their tasks; of predictions, keep them on disk until `complete`.

        Raises:
            StudioError: Label Studio refuses, or does not answer.
        """
        for item in items:
            self.found += 1
            if self._record is None or not item.labelled:
                continue
            (task,) = self._tasks[item.picture.path.name]
            if self._request.target == "annotations":
                self._annotate(task, item, self._record)
            else:
                self._offsets[task] = self._spool.seek(0, 2)
                self._spool.write(json.dumps({"result": item.result}).encode() + b"\n")

    def complete(self) -> tuple[int, int, int]:
        """Push what is left; returns how many are new, were there, and were refused.

        Raises:
            StudioError: Label Studio refuses, or does not answer.
        """
        if self._offsets and self._record is not None:
            version = version_of(self._request, self._record)
            target = PredictionsOfVersion(self._settings, self._request.project, version, self._moments)
            pushed = target.push(list(self._offsets), self._kept, lambda done: None)
            return pushed.created, pushed.there, len(pushed.dropped)
        return self._created, self._there, 0

    def _kept(self, task: int) -> dict[str, Any]:
        self._spool.seek(self._offsets[task])
        return dict(json.loads(self._spool.readline()))

    def _annotate(self, task: int, item: Item, record: ImportRecord) -> None:
        name = f"tator-import/{self._request.project}/{task}/{self._request.path}/{item.picture.name}"
        annotation = {
            "result": item.result, "import_id": record.number, "unique_id": str(uuid.uuid5(uuid.NAMESPACE_URL, name)),
        }  # fmt: skip
        try:
            path, content = f"/api/tasks/{task}/annotations/", json.dumps(annotation).encode()
            patiently(partial(self._api.post, path, content), record.id)
            self._created += 1
        except StudioError as error:
            if error.status != CONFLICT:
                raise
            self._there += 1


def version_of(request: DataImport, record: ImportRecord) -> str:
    """``model_version`` of predictions that an import put on tasks which were there."""
    return f"{request.model_version}/{record.id}"
