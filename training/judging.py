"""Boxes of tasks judged by a head, and what was found, kept so that a later attempt goes on with it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from label_config.interface import Interface
from tator_ml.engine.head import Head
from tator_ml.images.decode import ImageError
from tator_ml.images.fetch import ImageFetcher
from tator_ml.images.store import ImageStore
from tator_ml.learning.embedder import Embedder
from tator_ml.learning.embeddings import ImageBox
from tator_ml.quality.disagreements import Disagreement, disagreements, prediction
from tator_ml.quality.doubts import Doubt
from tator_sdk.annotations import LabelledBox
from tator_sdk.errors import TatorError
from tator_sdk.files import write_json
from tator_sdk.requests import Relabel
from training.standing import Marked

FOUND_FILE = "found.json"
SHOWN = 20  # doubtful boxes in the report
MOST_NOTES = 100


@dataclass
class Found:
    """What a check found.

    Attributes:
        head: that judged.
        version: ``model_version`` of what is offered.
        shows: version of predictions that the project shows.
        tasks: tasks with annotations, and in them
        boxes: that the head judged,
        unknown: of classes that the head does not know, and
        unreadable: whose picture could not be had.
        pairs: how often which label was found to be which other.
        doubtful: the most doubtful boxes, most doubtful first.
        notes: what was left out, in sentences.
        queue: for each doubtful task its score, its number, and where in the queue's file its prediction begins.
    """

    head: str
    version: str
    shows: str | None
    tasks: int = 0
    boxes: int = 0
    unknown: int = 0
    unreadable: int = 0
    pairs: Counter[tuple[str, str]] = field(default_factory=Counter)
    doubtful: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    queue: list[tuple[float, int, int]] = field(default_factory=list)

    def note(self, sentence: str) -> None:
        """Keep a sentence, up to as many as anybody reads."""
        if len(self.notes) < MOST_NOTES and sentence not in self.notes:
            self.notes.append(sentence)

    def add(
        self, task: int, boxes: Iterable[tuple[Disagreement, int, str, str | None]], score: float, offset: int
    ) -> None:
        """Count a task's doubtful boxes, each with its annotation, the region's id there, and its picture."""
        self.queue.append((score, task, offset))
        for one, annotation, region, image in boxes:
            self.pairs[one.box.label, one.label] += 1
            about = {"task": task, "annotation": annotation, "region": region, "from": one.box.label, "to": one.label}
            about |= {"image": image, "xyxy": list(one.box.xyxy)}
            self.doubtful.append({**about, "given": round(one.given, 4), "probability": round(one.probability, 4)})
        self.doubtful = sorted(self.doubtful, key=lambda row: (row["given"], -row["probability"]))[:SHOWN]

    def write(self, folder: Path) -> None:
        """Keep it for a later attempt of the job."""
        pairs = [[*pair, count] for pair, count in self.pairs.items()]
        write_json(folder / FOUND_FILE, {**vars(self), "pairs": pairs})

    @classmethod
    def read(cls, folder: Path) -> Found | None:
        """What an earlier attempt kept, or None."""
        try:
            kept = json.loads((folder / FOUND_FILE).read_text())
        except FileNotFoundError:
            return None
        pairs = Counter({(one, other): count for one, other, count in kept.pop("pairs")})
        queue = [(score, task, offset) for score, task, offset in kept.pop("queue")]
        return cls(**kept, pairs=pairs, queue=queue)


class Judge:
    """Judges chunks of tasks, and writes the predictions of doubtful ones to the queue's file.

    Attributes:
        doubts: what was found, for the dashboard's queue.
    """

    def __init__(
        self, request: Relabel, head: Head, interface: Interface, config: str, embedder: Embedder,
        fetcher: ImageFetcher, store: ImageStore, found: Found, file: IO[bytes],
    ) -> None:  # fmt: skip
        from label_studio_sdk.label_interface.interface import LabelInterface  # a second: not for every verb

        self._request = request
        self._head = head
        self._interface = interface
        self._rules: Any = LabelInterface(config)
        self._embedder = embedder
        self._fetcher = fetcher
        self._store = store
        self._found = found
        self._file = file
        self.doubts: list[Doubt] = []

    def __call__(self, chunk: Sequence[Marked]) -> None:
        """Judge the boxes of some tasks.

        Raises:
            TatorError: embeddings cannot be made, or are not those that the head was fitted on.
        """
        images, found = self._fetched(chunk), self._found
        places: dict[str, tuple[str, int]] = {image: place for place, image in images.items()}

        def provide(image: str) -> None:
            if image not in self._store and self._fetcher.fetch(*places[image]).image != image:
                raise ImageError(f"The picture {places[image][0]} changed while it was read.")

        placed: list[tuple[int, LabelledBox, ImageBox]] = []
        for row, task in enumerate(chunk):
            found.tasks += 1
            for box in task.boxes:
                image = images.get((task.address_of(box), task.task))
                if box.label not in self._head.classes:
                    found.unknown += 1
                elif image is None:
                    found.unreadable += 1
                else:
                    placed.append((row, box, ImageBox(image, box.xyxy)))
        if not placed:
            return
        embeddings = self._embedder.embed([where for _, _, where in placed], provide)
        for reason in embeddings.failed.values():
            found.note(reason)
        if embeddings.encoder != self._head.encoder:
            raise TatorError(
                f"Head {self._head.version} was fitted on {self._head.encoder}, which is not here "
                f"({embeddings.encoder} is): train it anew, or check TATOR_ENCODER."
            )
        rows: dict[int, list[int]] = {}
        for index, (row, _, _) in enumerate(placed):
            if embeddings.made[index]:
                rows.setdefault(row, []).append(index)
            else:
                found.unreadable += 1
        for row, indices in rows.items():
            found.boxes += len(indices)
            boxes = [placed[index][1] for index in indices]
            doubts = disagreements(
                self._head, boxes, embeddings.values[indices], chunk[row].results, self._interface,
                self._request.least_probability,
                self._request.most_given,
            )  # fmt: skip
            self._keep(chunk[row], doubts, images)
            shown = {(placed[index][1].region, placed[index][1].label): placed[index][2].image for index in indices}
            for one in doubts:
                annotation, region = chunk[row].origin[one.box.region]
                self.doubts.append(Doubt.of(one, chunk[row].task, annotation, found.head, shown, region))

    def _keep(self, task: Marked, doubts: Sequence[Disagreement], images: Mapping[tuple[str, int], str]) -> None:
        found = self._found
        valid = []
        for one in doubts:
            offered = prediction(task.task, [one], task.results, found.version)
            wrong = self._rules.validate_prediction(offered, return_errors=True)
            if wrong:  # Label Studio would drop the whole task's prediction without a word
                found.note(f"Task {task.task}: a region cannot be offered: {wrong[0]}")
            elif offered["result"]:
                valid.append(one)
        if valid:
            whole = prediction(task.task, valid, task.results, found.version)
            offset = self._file.tell()
            self._file.write(json.dumps(whole).encode() + b"\n")
            rows = (
                (one, *task.origin[one.box.region], images.get((task.address_of(one.box), task.task))) for one in valid
            )
            found.add(task.task, rows, whole["score"], offset)

    def _fetched(self, chunk: Sequence[Marked]) -> dict[tuple[str, int], str]:
        """Content hashes of the pictures that have boxes, by address and task."""
        wanted = {(address, task.task) for task in chunk for box in task.boxes if (address := task.address_of(box))}

        def fetched(place: tuple[str, int]) -> tuple[tuple[str, int], str | ImageError]:
            try:
                return place, self._fetcher.fetch(*place).image
            except ImageError as error:
                return place, error

        images = {}
        with ThreadPoolExecutor(4) as pool:
            for place, image in pool.map(fetched, sorted(wanted)):
                if isinstance(image, ImageError):
                    self._found.note(f"Task {place[1]}: {image}")
                else:
                    images[place] = image
        return images
