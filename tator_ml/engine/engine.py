"""The engine: the only holder of models, answering prompts on pictures that it keeps warm."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import CancelledError
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import nullcontext
from functools import partial

from tator_ml.engine import encoders
from tator_ml.engine.answering import answered, classified, in_words
from tator_ml.engine.batch_segment import BatchSegmenter, SegmentAsk, Segmented
from tator_ml.engine.classify import Classifier
from tator_ml.engine.concepts import ConceptAsk, ConceptsFound
from tator_ml.engine.detecting import Detector
from tator_ml.engine.embedding import Stepper, cut_crops
from tator_ml.engine.finding import Finder
from tator_ml.engine.frugal import Frugal, FrugalModels
from tator_ml.engine.lanes import About, Lane, Lanes
from tator_ml.engine.memory import Ladder, device_bytes, give_back, process_bytes, system_bytes
from tator_ml.engine.messages import (
    Answer,
    Ask,
    DetectAsk,
    Detected,
    EmbedAsk,
    Embedded,
    EngineError,
    Status,
)
from tator_ml.engine.models import ClassModels, Segmenters
from tator_ml.engine.named import all_segmenters
from tator_ml.engine.preload import Preloader
from tator_ml.engine.questions import Questions
from tator_ml.engine.refine import Guard
from tator_ml.engine.segmenters.base import Segmenter
from tator_ml.engine.store import EmbeddingStore
from tator_ml.engine.supply import Prepared, Supply
from tator_ml.engine.vlms import Vlms, registered_vlms
from tator_ml.engine.warm import WarmImage, WarmImages
from tator_ml.images.store import ImageStore
from tator_ml.running.lease import ClickLease
from tator_sdk.settings import Settings

log = logging.getLogger(__name__)


class Engine:
    """Answers prompts. One thread works on the device; any number may ask."""

    def __init__(
        self,
        settings: Settings,
        images: ImageStore,
        segmenter: Segmenter | Segmenters,
        classifier: Classifier | None,
        device: str = "cpu",
        models: ClassModels | None = None,
        vlms: Vlms | None = None,
    ) -> None:
        """Start the device's thread, and those that prepare and tidy.

        Args:
            settings: budgets, guard and patience.
            images: pictures by content hash.
            segmenter: answers the prompts; or all that may be asked for, with one that is the engine's own.
            classifier: classifies for projects without a head of their own; None leaves the drawn class.
            device: its name, for the status.
            models: encoders and heads for projects that have one; by default encoders load on ``device``.
            vlms: models that are asked in words; by default those of the registry, on the device of the settings.
        """
        self._settings = settings
        self._images = images
        self._segmenters = (
            segmenter if isinstance(segmenter, Segmenters) else all_segmenters(settings, device, segmenter)
        )
        self._classifier = classifier
        self._guard = Guard.of(settings)
        self._device = device
        self._lanes = Lanes()
        self._segmenters.pause_between_parts(self._lanes.pause)
        self._ladder = Ladder(self._relief)
        self._models = FrugalModels(models or ClassModels(lambda name: encoders.load(name, device)), self._ladder)
        self._lease = ClickLease(settings.home / "run", device)
        self._stepper = Stepper(self._lanes, self._lease)
        self._supply = Supply(
            images,
            EmbeddingStore(settings.home / "warm", settings.embedding_store_bytes),
            WarmImages(settings.warm_bytes),
            settings.image_max_pixels,
            device,
        )
        self._batches = BatchSegmenter(self._lanes, self._supply, self._lease)
        self._vlms = vlms or registered_vlms(settings, device)
        self._questions = Questions(self._lanes, settings.answer_timeout_seconds)
        self._detector = Detector(settings, self._lanes, self._questions, self._supply, self._vlms, self._ladder)
        self._finder = Finder(self._lanes, self._questions, self._supply, self._segmenter)
        self._preloader = Preloader(self._lanes, self._segmenter, self._supply)
        self._came_from: Counter[str] = Counter()
        self._last_click: float | None = None
        self._closed = threading.Event()
        threading.Thread(target=self._tidy, name="tator-tidy", daemon=True).start()

    @property
    def model_version(self) -> str:
        """Segmenter and head with their versions, as predictions carry it."""
        return f"{self._segmenters.version()}+{_head_version(self._classifier)}"

    def answer(self, ask: Ask) -> Answer:
        """Answer prompts: an annotator's before everything that waits in other lanes, a job's behind.

        Raises:
            UnknownImage: the picture's bytes are not in the store.
            UnknownHead: the head that is asked for was not put here.
            HeadError: it cannot be used.
            ImageError: they cannot be decoded.
            Busy: too many clicks wait already.
            Superseded: a newer request of the task contains this one's prompts.
            OutOfMemory: whatever was given up, memory did not suffice.
            EngineError: no answer in time.
            TatorError: the segmenter cannot be loaded.
        """
        with self._lease.held() if ask.lane == "click" else nullcontext():
            return self._in_lane(ask)

    def _in_lane(self, ask: Ask) -> Answer:
        begun, clicked = time.monotonic(), ask.lane == "click"
        classifier = self._models.classifier(ask.head) if ask.head and ask.classify else self._classifier
        about = About(ask.image, ask.segmenter or "", ask.task, frozenset(ask.prompt_ids), what=in_words(ask))
        ticket = self._lanes.enter(Lane[ask.lane.upper()], about)
        if clicked:
            self._last_click = begun
            self._supply.warm.pin([ask.image], self._settings.warm_pin_seconds)
        try:
            segmenter = self._segmenter(ask.segmenter)
            classify = ask.classify and classifier is not None
            prepared = self._supply.prepare(segmenter.version, ask.image, pixels=classify)
        except BaseException:
            self._lanes.leave(ticket)
            raise
        self._lanes.ready(ticket, partial(self._answer, ask, segmenter, prepared, classifier, begun))
        del prepared  # the work holds it, as long as it waits
        patience = self._settings.answer_timeout_seconds - (time.monotonic() - begun)
        try:
            answer: Answer = ticket.future.result(max(patience, 0.1) if clicked else None)
        except FutureTimeout:
            self._lanes.leave(ticket)
            seconds = self._settings.answer_timeout_seconds
            raise EngineError(f"Tator did not finish within {seconds:g} s; try again.") from None
        except CancelledError:
            raise EngineError("Tator's engine is stopping; try again in a moment.") from None
        if clicked:  # what the status tells of clicks is of clicks alone
            self._came_from[answer.came_from] += 1
        return answer

    def warm(self, image: str, segmenter: str | None = None, group: str = "") -> bool:
        """Make a picture ready ahead of its first prompt, without waiting; False when there is no room to wait.

        Args:
            image: content hash.
            segmenter: as in :class:`Ask`.
            group: preloads of one group can be dropped together.
        """
        return self._preloader.submit(image, segmenter, group)

    def drop_preloads(self, keep: Collection[str], group: str | None = None) -> int:
        """Drop preloads that have not started.

        Args:
            keep: content hashes of pictures that stay wanted.
            group: only preloads of this group; None for all.

        Returns:
            How many were dropped.
        """
        return self._lanes.drop(Lane.PRELOAD, lambda about: about.image not in keep and group in (None, about.group))

    def keep(self, image: str, segmenter: str | None = None) -> bool:
        """Have a picture's embedding on disk, encoded in the batch lane if need be; waits until it is there.

        Returns:
            Whether it was encoded now.

        Raises:
            UnknownImage, ImageError, Busy, OutOfMemory, TatorError: as :meth:`answer`.
            EngineError: it cannot be written.
        """
        model = self._segmenter(segmenter)
        store = self._supply.store
        if store.contains(model.version, image):
            return False
        with store.claim(model.version, image):  # another engine on this home may be at it
            return not store.contains(model.version, image) and self._kept(model, image)

    def _kept(self, model: Frugal, image: str) -> bool:
        prepared = self._supply.prepare(model.version, image, pixels=False)
        made = False
        if isinstance(prepared, WarmImage):
            embedding = prepared.embedding
        else:
            work = partial(self._supply.embedding, model, prepared)
            about = About(image, what="an embedding for the disk")
            embedding, came_from = self._lanes.submit(Lane.BATCH, work, about).result()
            made = came_from == "encoded"
        if not self._supply.write(image, embedding):
            raise EngineError("The embedding cannot be kept on disk; free some, or raise TATOR_EMBEDDING_STORE_BYTES.")
        return made

    def pin(self, images: Collection[str], seconds: float) -> None:
        """Let these pictures leave memory last of all for some time, as if each had been clicked on."""
        self._supply.warm.pin(images, seconds)

    def set_budget(self, budget_bytes: int) -> None:
        """Change the memory for warm pictures; what is too much goes at once."""
        self._supply.warm.set_budget(budget_bytes)
        give_back()
        log.info("warm pictures may take %d MiB", budget_bytes // 2**20)

    def put_image(self, data: bytes) -> str:
        """Keep a picture's bytes; returns its content hash."""
        return self._images.put(data)

    def put_head(self, files: Mapping[str, bytes]) -> str:
        """Take in a class head by its files; returns its version.

        Raises:
            HeadError: the files are damaged, or its encoder cannot be loaded or is another one.
        """
        return self._models.put_head(files)

    def embed(self, ask: EmbedAsk) -> Embedded:
        """Embed boxes in the batch lane; crops are cut on the caller's thread.

        Raises:
            UnknownImage: a picture's bytes are not in the store.
            ImageError: they cannot be decoded.
            Busy: too much work waits already.
            OutOfMemory: there is no room for the encoder, or for a few crops.
            EncoderError: it cannot be loaded.
        """
        encoder = self._models.encoder(ask.encoder)
        crops = cut_crops(ask, encoder, self._images.get, self._settings.image_max_pixels, self._lease.stand_aside)
        return self._stepper.embed(encoder, crops)

    def segment(self, ask: SegmentAsk) -> Segmented:
        """Segment all boxes of a picture in the batch lane; the picture is encoded at most once.

        Raises:
            UnknownImage, ImageError, Busy, OutOfMemory, TatorError: as :meth:`answer`.
        """
        return self._batches.segment(self._segmenter(ask.segmenter), ask)

    def detect(self, ask: DetectAsk, abandoned: Callable[[], bool] = lambda: False) -> Detected:
        """Ask a vision-language model in words; see :meth:`Detector.detect`, which has the errors.

        Args:
            ask: the question; a person's goes before all jobs, and clicks go first while it is answered.
            abandoned: looked at now and then; True ends it.
        """
        with self._lease.held() if ask.lane == "click" else nullcontext():
            return self._detector.detect(ask, abandoned)

    def find_concepts(self, ask: ConceptAsk, abandoned: Callable[[], bool] = lambda: False) -> ConceptsFound:
        """Find every instance of phrases and exemplars; see :meth:`Finder.find`, which has the errors."""
        if ask.lane == "batch":
            return self._finder.find(ask, abandoned)
        self._supply.warm.pin([ask.image], self._settings.warm_pin_seconds)
        with self._lease.held():
            return self._finder.find(ask, abandoned)

    def stop_detecting(self, task: str) -> int:
        """Take back all questions of a task, in words and about concepts; returns how many."""
        return self._questions.stop(task)

    def encoder_version(self, name: str) -> str:
        """Version of the encoder of a name, which is loaded if need be.

        Raises:
            EncoderError, OutOfMemory: as :meth:`embed`.
        """
        return self._models.encoder(name).version

    def segmenter_version(self, name: str | None = None) -> str:
        """Version of the segmenter of a name, which is loaded if need be.

        Raises:
            TatorError: it cannot be loaded; the message says what to do.
        """
        return self._segmenter(name).version

    def status(self) -> Status:
        """What the engine is doing now."""
        used, free, total = device_bytes(self._device)
        system_free, system_total = system_bytes()
        warm, store = self._supply.warm, self._supply.store
        return Status(
            ready=True,
            device=self._device,
            model_version=self.model_version,
            waiting=self._lanes.waiting(),
            warm=warm.status(),
            budget_bytes=warm.budget_bytes,
            encodings=self._supply.encodings,
            segmenter=self._segmenters.version(),
            head=_head_version(self._classifier),
            hits=self._came_from["memory"],
            disk_hits=self._came_from["disk"],
            misses=self._came_from["encoded"],
            evictions=warm.evictions,
            store_bytes=store.nbytes,
            store_budget_bytes=store.max_bytes,
            oldest_seconds=self._lanes.oldest_seconds(),
            latencies=self._lanes.latencies(),
            flights=self._lanes.flights(),
            process_bytes=process_bytes(),
            device_bytes=used,
            device_free_bytes=free,
            device_total_bytes=total,
            system_free_bytes=system_free,
            system_total_bytes=system_total,
            segmenters=self._segmenters.status(),
            vlms=self._vlms.status(),
            memory_steps=dict(self._ladder.steps),
            superseded=self._lanes.superseded,
            dropped_preloads=self._lanes.dropped,
            clicks=self._came_from.total(),
            since_click_seconds=None if self._last_click is None else time.monotonic() - self._last_click,
        )

    def close(self) -> None:
        """End the threads; what is encoded is written first."""
        self._closed.set()
        self._lanes.close()
        self._preloader.close()
        self._supply.close()

    def _segmenter(self, name: str | None) -> Frugal:
        name = name or self._segmenters.default
        loaded = self._ladder.run(name, lambda: self._segmenters.get(name))
        return Frugal(name, loaded, self._ladder, self._segmenters.on_cpu(name))

    def _answer(
        self, ask: Ask, segmenter: Frugal, prepared: Prepared | WarmImage, classifier: Classifier | None, begun: float
    ) -> Answer:
        """On the device's thread."""
        warm, came_from = self._supply.warmed(segmenter, prepared)
        usual = self._models.usual_area(ask.head, ask.label)
        found = self._ladder.run(segmenter.name, lambda: answered(segmenter, warm.embedding, ask, self._guard, usual))
        if ask.classify and classifier is not None:
            found = classified(classifier, warm.picture(), found, self._ladder, segmenter.name)
        return Answer(
            found=tuple(found),
            size_wh=warm.embedding.size_wh,
            model_version=f"{segmenter.version}+{ask.head or _head_version(classifier)}",
            was_warm=came_from != "encoded",
            seconds=time.monotonic() - begun,
            came_from=came_from,
        )

    def _relief(self, segmenter: str) -> Iterator[str]:
        """Free what others hold; see :class:`Ladder`."""
        if self._lanes.drop(Lane.PRELOAD, lambda _: True):
            yield "preloads dropped"
        if self._supply.warm.halve():
            yield "warm pictures halved"
        if self._release(0.0, segmenter or self._segmenters.default) + self._models.release() + self._vlms.release(0.0):
            yield "idle models released"

    def _release(self, idle_seconds: float, keep: str | None = None) -> int:
        """Forget idle segmenters with their warm pictures; returns how many."""
        versions = self._segmenters.release(idle_seconds, keep)
        for version in versions:
            self._supply.warm.forget(version)
        return len(versions)

    def _tidy(self) -> None:
        """Release what nobody uses, now and then."""
        patience = self._settings.segmenter_idle_seconds
        while not self._closed.wait(min(patience / 2, 30.0)):
            if self._release(patience) + self._vlms.release(patience):
                give_back()


def _head_version(classifier: Classifier | None) -> str:
    return classifier.version if classifier else "no-head"
