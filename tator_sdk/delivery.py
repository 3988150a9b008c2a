"""Batches of new tasks on their way to Label Studio, each exactly once."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tator_sdk.bulk import BulkApi
from tator_sdk.files import write_durably
from tator_sdk.formats.dataset import LabelledPicture
from tator_sdk.import_record import ImportRecord, mark_of
from tator_sdk.in_flight import InFlight
from tator_sdk.patience import patiently
from tator_sdk.picture_addresses import Addresses, Place
from tator_sdk.push import Moment
from tator_sdk.regions import Region
from tator_sdk.requests import DataImport
from tator_sdk.studio import StudioError
from tator_sdk.untouched import FIELDS, worked_on

MOST_REFUSED = 20  # where nothing is accepted


@dataclass(frozen=True)
class Item:
    """A picture that becomes a task.

    Attributes:
        picture: as it was read.
        key: that tells it from all others.
        result: its regions.
        labelled: whether it gets an annotation or a prediction at all.
    """

    picture: LabelledPicture
    key: str
    result: list[Region]
    labelled: bool


class Delivery:
    """Sends batches of tasks; used by one thread at a time.

    Attributes:
        created: tasks that were made.
        refused: pictures that Label Studio refused, in sentences.
        doubtful: some pictures may be there twice, because a request came through after it was sent again.
    """

    TASKS_TOGETHER = 1000
    UPLOADED_TOGETHER = 100
    REGIONS_TOGETHER = 50_000

    def __init__(
        self, api: BulkApi, request: DataImport, record: ImportRecord, data_key: str, addresses: Addresses,
        notes: Path, moments: Callable[[Moment], None],
    ) -> None:  # fmt: skip
        """Nothing is sent yet.

        Args:
            api: of Label Studio.
            request: of the import.
            record: of the import.
            data_key: of a task's data, that takes the address of its picture.
            addresses: of the pictures.
            notes: path, without an ending, of what is kept about the request that is on its way.
            moments: called at each `Moment` of each request.
        """
        self.created = 0
        self.refused: list[str] = []
        self._api, self._request, self._record = api, request, record
        self._data_key, self._addresses, self._moments = data_key, addresses, moments
        self._in_flight = InFlight(notes.with_name(f"{notes.name}.sending"))
        self._uploads = notes.with_name(f"{notes.name}.uploads")
        self._spare: list[Place] = []
        self.doubtful = False

    def settle(self) -> None:
        """Wait for what an earlier attempt may have left on its way, and remove pictures that it uploaded in vain.

        Raises:
            StudioError: Label Studio refuses, or does not answer.
        """
        unknown = self._in_flight.path.exists()
        if not self._in_flight.settle(self._has_address) and unknown:
            self.doubtful = True  # what the earlier attempt sent may still come through, beside what is sent again
        if self._uploads.exists():
            places = [Place(*row) for row in json.loads(self._uploads.read_bytes())]
            if self.doubtful:
                self._spare = places  # they may still get their tasks
            else:
                self._delete_spare(places)
            self._uploads.unlink()

    def send(self, items: Sequence[Item]) -> None:
        """Make the tasks.

        Raises:
            StudioError: Label Studio refuses, or does not answer for three quarters of a minute.
        """
        places: list[Place] = []
        for some in self._addresses.places([item.picture for item in items]):
            places += some
            if some[0].upload is not None:
                rows = [[place.address, place.upload] for place in places]
                write_durably(self._uploads, json.dumps(rows).encode())
        self._deliver(list(zip(items, places, strict=True)))
        self._uploads.unlink(missing_ok=True)

    def remove_doubles(self) -> int:
        """Where a request may have come through twice: delete the newer task of a picture; returns how many.

        One that people have worked on stays.

        Raises:
            StudioError: Label Studio refuses, or does not answer.
        """
        if not self.doubtful:
            return 0
        tasks: dict[str, list[dict[str, Any]]] = {}
        for task in self._api.tasks(self._request.project, *FIELDS):
            mark = mark_of(task)
            if mark is not None and mark["import"] == self._record.id:
                tasks.setdefault(mark["key"], []).append(task)
        doubles: list[int] = []
        for twins in tasks.values():
            spare = [int(task["id"]) for task in twins if not worked_on(task, self._record.number)]
            worked = len(twins) - len(spare)
            doubles += sorted(spare)[0 if worked else 1 :]
        self._api.delete_tasks(self._request.project, doubles)
        self._delete_spare(self._spare)
        return len(doubles)

    def _delete_spare(self, places: Sequence[Place]) -> None:
        # each by itself: of a batch that was cut in two for a refused picture, some may be there and some not
        self._delete_uploads([place for place in places if not self._has_address(place.address)])

    def _deliver(self, batch: Sequence[tuple[Item, Place]]) -> None:
        content = json.dumps([self._task(item, place) for item, place in batch], ensure_ascii=False).encode()
        try:
            patiently(partial(self._post, content, batch[-1][1].address), self._record.id)
            self.created += len(batch)
        except StudioError as error:
            if error.status not in {400, 413}:
                raise
            if len(batch) == 1:
                self.refused.append(f"{batch[0][0].picture.name}: {error}")
                self._delete_uploads([batch[0][1]])
                if not self.created and len(self.refused) == MOST_REFUSED:
                    raise StudioError(f"Label Studio refuses all pictures. The first: {self.refused[0]}") from error
                return
            middle = len(batch) // 2
            self._deliver(batch[:middle])
            self._deliver(batch[middle:])

    def _post(self, content: bytes, address: str) -> None:
        """Send a request, unless it turns out that it came through before."""
        if self._in_flight.settle(self._has_address):
            return
        self._in_flight.begin(address, len(content))
        self._moments("before sending")
        try:
            path = f"/api/projects/{self._request.project}/import"
            self._api.post(path, content, sent=partial(self._moments, "sent"))
        except StudioError as error:
            if error.passing and not error.unsent:
                self.doubtful = True
                raise  # the note stays: nobody knows what came of it
            self._in_flight.end()
            raise
        self._moments("answered")
        self._in_flight.end()

    def _task(self, item: Item, place: Place) -> dict[str, Any]:
        task: dict[str, Any] = {
            "data": {self._data_key: place.address},
            "meta": {"tator": {"import": self._record.id, "key": item.key}},
        }
        if place.upload is not None:
            task["file_upload_id"] = place.upload
        if item.labelled and self._request.target == "annotations":
            # without a word Label Studio takes what is imported for ground truth
            task["annotations"] = [{"result": item.result, "id": self._record.number, "ground_truth": False}]
        elif item.labelled:
            task["predictions"] = [{"result": item.result, "model_version": self._request.model_version}]
        return task

    def _has_address(self, address: str) -> bool:
        """Whether a task has it; a request is written in one go, so its last one stands for all."""
        column = {"filter": f"filter:tasks:data.{self._data_key}", "operator": "equal", "type": "String"}
        query = {"filters": {"conjunction": "and", "items": [{**column, "value": address}]}}
        return any(True for _ in self._api.tasks(self._request.project, "id", query=query))

    def _delete_uploads(self, places: Sequence[Place]) -> None:
        numbers = [place.upload for place in places if place.upload is not None]
        if numbers:  # without numbers Label Studio deletes every upload of the project
            self._api.delete(f"/api/projects/{self._request.project}/file-uploads", {"file_upload_ids": numbers})
