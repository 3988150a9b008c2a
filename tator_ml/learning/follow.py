"""What happens when an annotation comes, changes or goes: kept, embedded, checked, and in time learned from."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

from pydantic import ValidationError

from label_config.errors import LabelConfigError
from label_config.reader import read_cached
from tator_ml.engine.crops import CropRecipe
from tator_ml.images.fetch import ImageRef
from tator_ml.launch import launch
from tator_ml.learning.embedder import Computes, Embedder
from tator_ml.learning.embeddings import EmbeddingCache, ImageBox
from tator_ml.learning.examples import Examples, revision
from tator_ml.learning.registry import HeadRegistry, RegistryError
from tator_ml.projects import Projects
from tator_ml.quality.disagreements import disagreements, prediction
from tator_ml.quality.doubts import Doubt, Doubts
from tator_sdk.annotations import LabelledBox, addresses_of, labelled_boxes
from tator_sdk.errors import TatorError
from tator_sdk.requests import HeadTraining
from tator_sdk.settings import Settings
from tator_sdk.studio import StudioError, open_studio, sentences

log = logging.getLogger(__name__)

Json = Mapping[str, Any]
CHECK = "check"  # after the head's version, marks predictions that a submitted annotation gave rise to
LONGEST_WAIT_SECONDS = 30.0  # for a quiet moment, where annotations keep coming


class Fetches(Protocol):
    """Addresses in tasks → pictures in the store."""

    def fetch(self, address: str, task_id: int | None = None) -> ImageRef:
        """Bring the picture of an address into the store."""
        ...


class Follower:
    """Follows the annotations of all projects. Webhooks only queue: Label Studio waits a second for them."""

    def __init__(
        self,
        settings: Settings,
        computes: Computes,
        images: Fetches,
        examples: Examples,
        cache: EmbeddingCache,
        registry: HeadRegistry,
        projects: Projects,
        doubts: Doubts | None = None,
    ) -> None:
        self._settings = settings
        self._computes = computes
        self._images = images
        self._examples = examples
        self._cache = cache
        self._registry = registry
        self._projects = projects
        self._doubts = doubts
        self._order = ThreadPoolExecutor(1, thread_name_prefix="tator-follow")  # changes stay in their order
        self._embedding = ThreadPoolExecutor(1, thread_name_prefix="tator-learn")
        self._timers: dict[int, tuple[threading.Timer, float]] = {}
        self._read: set[int] = set()  # projects whose annotations were read since the start
        self._lock = threading.Lock()

    def annotated(
        self, project: int, annotation: Json, task: Json, label_config: str, suggested: frozenset[str] = frozenset()
    ) -> None:
        """An annotation was submitted or changed; ``suggested`` are ids of regions that Tator classified itself."""
        self._order.submit(self._guarded, self._annotated, project, annotation, task, label_config, suggested)

    def came_in_bulk(self, project: int, annotations: Sequence[int]) -> None:
        """Many annotations came at once, of which a webhook says no more than the numbers."""
        self._order.submit(self._guarded, self._came_in_bulk, project, annotations)

    def deleted(self, project: int, annotations: Sequence[int]) -> None:
        """Annotations were deleted."""
        self._order.submit(self._guarded, self._deleted, project, annotations)

    def train(self, project: int, sync: bool = True) -> str:
        """Start a training of the project's head, with the settings of its active one; returns the job's id.

        Any number of calls makes one job that runs and at most one that waits.

        Raises:
            TatorError: jobs cannot be started.
        """
        return launch(self._settings, self._request(project, sync), any_that_waits=True)[0].id

    def close(self) -> None:
        """Finish what was begun and start nothing more."""
        self._order.shutdown(cancel_futures=True)  # first: it may start a timer yet
        with self._lock:
            for timer, _ in self._timers.values():
                timer.cancel()
            self._timers.clear()
        self._embedding.shutdown(cancel_futures=True)
        self._examples.close()
        self._cache.close()

    def settle(self) -> None:
        """Wait until everything that came so far is stored, embedded and checked."""
        self._order.submit(lambda: None).result()
        self._embedding.submit(lambda: None).result()

    def _guarded(self, work: Callable[..., None], project: int, *arguments: Any) -> None:
        try:
            work(project, *arguments)
        except (TatorError, LabelConfigError) as error:
            log.warning("project %s: %s", project, error)
        except Exception:  # nobody waits for this thread's result
            log.exception("project %s: an annotation could not be followed", project)

    def _annotated(
        self, project: int, annotation: Json, task: Json, label_config: str, suggested: frozenset[str]
    ) -> None:
        number, task_id = int(annotation["id"]), int(annotation.get("task") or task["id"])
        if annotation.get("was_cancelled"):  # skipped: nothing was said about its objects
            self._deleted(project, [number])
            return
        interface = read_cached(label_config)
        result = annotation.get("result") or []
        boxes = labelled_boxes(result, interface)
        addresses = addresses_of(interface, task.get("data") or {})
        updated = revision(annotation.get("updated_at"), interface, addresses)
        self._examples.put(project, task_id, number, updated, boxes, addresses)
        self._embedding.submit(
            self._guarded, self._learnt, project, task_id, number, result, boxes, addresses, label_config, suggested
        )
        self._consider_training(project)

    def _came_in_bulk(self, project: int, annotations: Sequence[int]) -> None:
        self._examples.heard_of(project, annotations)
        self._consider_training(project)

    def _deleted(self, project: int, annotations: Sequence[int]) -> None:
        self._examples.delete(project, annotations)
        for annotation in annotations:  # behind checks of theirs that wait yet
            self._embedding.submit(self._guarded, self._forgotten, project, annotation)
        self._consider_training(project)

    def _forgotten(self, project: int, annotation: int) -> None:
        """Take back what a check of an annotation left that is no more."""
        if self._doubts is not None:
            self._doubts.replace(project, annotation, [])
        self._offer(project, annotation, None)

    def _learnt(
        self, project: int, task: int, annotation: int, result: Sequence[object], boxes: Sequence[LabelledBox],
        addresses: Mapping[tuple[str, int], str], label_config: str, suggested: frozenset[str],
    ) -> None:  # fmt: skip
        """Embed an annotation's boxes as the project's head wants them, and check those drawn by hand."""
        entry = self._active(project)
        head = entry.head() if entry else None
        encoder = head.encoder_name if head else self._settings.encoder
        recipe = head.recipe if head else CropRecipe()
        placed: list[tuple[LabelledBox, ImageBox]] = []
        for place, address in addresses.items():
            mine = [box for box in boxes if (box.image_name, box.item_index) == place]
            if not mine:
                continue
            image = self._images.fetch(address, task).image
            self._examples.set_image(project, address, image)
            placed += [(box, ImageBox(image, box.xyxy)) for box in mine]
        embeddings = Embedder(self._computes, self._cache, encoder, recipe).embed([where for _, where in placed])
        if head is None or entry is None or not self._settings.check_submitted:
            return
        rows = [row for row, (box, _) in enumerate(placed) if embeddings.made[row] and box.region not in suggested]
        found = disagreements(
            head, [placed[row][0] for row in rows], embeddings.values[rows], result, read_cached(label_config)
        )
        if self._doubts is not None:
            images = {(box.region, box.label): where.image for box, where in placed}
            noted = [Doubt.of(one, task, annotation, entry.version, images) for one in found]
            self._doubts.replace(project, annotation, noted)
        version = f"{entry.version}/{CHECK}"
        self._offer(project, annotation, prediction(task, found, result, version) if found else None)

    def _offer(self, project: int, annotation: int, wanted: dict[str, Any] | None) -> None:
        """Let an annotation have this prediction as our offer, or none, in place of what an earlier check left."""
        standing, said = self._examples.offer(project, annotation), _said(wanted)
        if (standing is None and wanted is None) or (standing and wanted and standing[1] == said):
            return
        studio: Any = open_studio(self._settings)
        url = self._settings.label_studio_url
        if standing is not None:
            try:
                with sentences(url):
                    studio.predictions.delete(standing[0])
            except StudioError as error:
                if error.passing:
                    raise  # it still stands, and the next change of the annotation withdraws it
                log.info("project %s: an offer was gone already: %s", project, error)
            self._examples.set_offer(project, annotation, None)
        if wanted is not None:
            with sentences(url):
                made = studio.predictions.create(**wanted)
            self._examples.set_offer(project, annotation, int(made.id), said)

    def _active(self, project: int) -> Any:
        try:
            return self._registry.active(project)
        except RegistryError as error:
            log.warning("project %s: %s", project, error)
            return None

    def _request(self, project: int, sync: bool) -> HeadTraining:
        entry = self._active(project)
        before = dict(entry.report.get("request") or {}) if entry else {}
        before.update(project=project, sync=sync, images_path=None, labels_path=None, labelmap_path=None)
        before["activation"] = "auto"
        try:
            return HeadTraining.model_validate(before)
        except ValidationError:  # a report of another version
            return HeadTraining(project=project, sync=sync)

    def _consider_training(self, project: int) -> None:
        """Train once enough is new, and no further annotation has come for a moment."""
        chosen = self._projects.get(project).train_after
        after = self._settings.train_after if chosen is None else chosen
        if not after or self._examples.news(project) < after:
            return
        now = time.monotonic()
        with self._lock:
            timer, since = self._timers.pop(project, (None, now))
            if timer is not None:
                timer.cancel()
            quiet = min(self._settings.train_quiet_seconds, max(0.0, since + LONGEST_WAIT_SECONDS - now))
            timer = threading.Timer(quiet, self._due, (project,))
            timer.daemon = True
            self._timers[project] = (timer, since)
            timer.start()

    def _due(self, project: int) -> None:
        with self._lock:
            self._timers.pop(project, None)
        try:
            # what came while Tator was away, no webhook told: the first training after a start reads the project
            sync = project not in self._read or self._examples.unread(project)
            log.info("project %s: %s is trained by itself", project, self.train(project, sync=sync))
            self._read.add(project)
        except TatorError as error:
            log.warning("project %s is not trained by itself: %s", project, error)


def _said(wanted: Mapping[str, Any] | None) -> str:
    """What a prediction says, to tell whether another one says the same."""
    return json.dumps(wanted, sort_keys=True) if wanted else ""
