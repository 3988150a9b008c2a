"""The models of an engine: segmenters and encoders by name, heads by version, each loaded when first needed."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import nn

from tator_ml.engine.classify import HeadClassifier
from tator_ml.engine.encoders.base import Encoder
from tator_ml.engine.head import Head, HeadError
from tator_ml.engine.memory import is_out_of_memory
from tator_ml.engine.messages import EngineError, SegmenterStatus, UnknownHead
from tator_ml.engine.segmenters.base import Pausable, Segmenter
from tator_ml.once import Once
from tator_sdk.errors import TatorError

log = logging.getLogger(__name__)
HEADS_KEPT = 64  # a head is some hundred kilobytes
ENCODERS_KEPT = 2  # the one in use, and one that a job or another project asks for


class ClassModels:
    """Owns encoders and heads of an engine; any thread may ask."""

    def __init__(self, load_encoder: Callable[[str], Encoder]) -> None:
        self._load_encoder = load_encoder
        self._lock = threading.Lock()
        self._loading = threading.Lock()  # a click must not wait while another encoder is read from disk
        self._encoders: OrderedDict[str, Encoder] = OrderedDict()
        self._heads: OrderedDict[str, Head] = OrderedDict()

    def encoder(self, name: str) -> Encoder:
        """The encoder of a name, loaded now if need be; the one used longest ago makes room.

        Raises:
            EncoderError: it cannot be loaded.
        """
        found = self._loaded(name)
        if found is not None:
            return found
        with self._loading:
            found = self._loaded(name)
            if found is None:
                found = self._load_encoder(name)
                log.info("encoder %s loaded: %s", name, found.version)
                with self._lock:
                    self._encoders[name] = found
                    while len(self._encoders) > ENCODERS_KEPT:
                        self._encoders.popitem(last=False)
            return found

    def classifier(self, version: str) -> HeadClassifier:
        """The classifier of a head that was put here before.

        Raises:
            UnknownHead: it was not.
            HeadError: its encoder cannot be loaded, or is another one than it was fitted on.
        """
        with self._lock:
            head = self._heads.get(version)
            if head is None:
                raise UnknownHead(f"The head {version} is not loaded.")
            self._heads.move_to_end(version)
        return self._classifier_of(head)

    def usual_area(self, version: str | None, label: str | None) -> float | None:
        """How large objects of a label usually are, as a share of the picture; None where the head does not know."""
        with self._lock:
            head = self._heads.get(version or "")
        return head.usual_area(label) if head is not None and label else None

    def put_head(self, files: Mapping[str, bytes]) -> str:
        """Take in a head by its files; returns its version.

        Raises:
            HeadError: the files are damaged, or its encoder cannot be loaded or is another one than it was fitted on.
        """
        head = Head.of_files(files, "the engine")
        self._classifier_of(head)
        with self._lock:
            self._heads[head.version] = head
            while len(self._heads) > HEADS_KEPT:
                self._heads.popitem(last=False)
        return head.version

    def release(self) -> int:
        """Forget all encoders but the one used last; returns how many."""
        with self._lock:
            gone = len(self._encoders) - 1
            while len(self._encoders) > 1:
                self._encoders.popitem(last=False)
            return max(gone, 0)

    def _classifier_of(self, head: Head) -> HeadClassifier:
        try:
            return HeadClassifier(self.encoder(head.encoder_name), head)
        except HeadError:
            raise
        except Exception as error:  # whatever a model's loader raises
            if is_out_of_memory(error):
                raise
            raise HeadError(f"The head {head.version} cannot be used: {error}") from error

    def _loaded(self, name: str) -> Encoder | None:
        with self._lock:
            if name in self._encoders:
                self._encoders.move_to_end(name)
            return self._encoders.get(name)


class Segmenters:
    """Owns the segmenters of an engine; any thread may ask.

    Loading happens on the thread of whoever asks first, so that clicks on other segmenters do not wait for it.
    """

    def __init__(
        self,
        default: str,
        load: Callable[[str], Segmenter],
        given: Segmenter | None = None,
        load_on_cpu: Callable[[str], Segmenter] | None = None,
    ) -> None:
        """Prepare; nothing is loaded yet.

        Args:
            default: name of the engine's own.
            load: name → segmenter on the device.
            given: the default one, loaded by somebody else; it is never released.
            load_on_cpu: for a device that ran out of memory; None where the device is the CPU.
        """
        self.default = default
        self._load = load
        self._load_on_cpu = load_on_cpu
        self._given = given
        self._lock = threading.Lock()
        self._loading: dict[tuple[str, bool], Once[Segmenter]] = {}
        self._loaded: dict[tuple[str, bool], Segmenter] = {}
        self._used: dict[tuple[str, bool], float] = {}
        self._versions: dict[str, str] = {}
        self._pause: Callable[[], None] | None = None
        if given is not None:
            self._keep((default, False), given)

    def get(self, name: str | None = None) -> Segmenter:
        """The segmenter of a name, None for the engine's own; loaded now if need be.

        Raises:
            TatorError: it cannot be loaded; the message says what to do.
        """
        return self._get((name or self.default, False), self._load)

    def pause_between_parts(self, pause: Callable[[], None]) -> None:
        """Have ``pause`` called between the parts of every encoding, of those loaded and of those to come."""
        with self._lock:
            self._pause = pause
            for segmenter in self._loaded.values():
                self._let_pause(segmenter)

    def on_cpu(self, name: str | None = None) -> Callable[[], Segmenter] | None:
        """How to get the same segmenter on the CPU; None where that would be no help."""
        load = self._load_on_cpu
        return None if load is None else lambda: self._get((name or self.default, True), load)

    def version(self, name: str | None = None) -> str:
        """``Segmenter.version`` of a name; empty when it was never loaded."""
        with self._lock:
            return self._versions.get(name or self.default, "")

    def release(self, idle_seconds: float, keep: str | None = None) -> list[str]:
        """Forget what was not asked for during this time.

        Args:
            idle_seconds: since it was last asked for.
            keep: a name that stays in any case; None for the one that was asked for last.

        Returns:
            Versions of those forgotten.
        """
        before = time.monotonic() - idle_seconds
        with self._lock:
            spared = (keep, False) if keep else max(self._loaded, key=self._used.__getitem__, default=None)
            gone = [
                key
                for key, segmenter in self._loaded.items()
                if key != spared and segmenter is not self._given and self._used[key] <= before
            ]
            for key in gone:
                del self._loaded[key]
        for name, on_cpu in gone:
            log.info("segmenter %s%s is released", name, " on the CPU" if on_cpu else "")
        return [self._versions[name] for name, on_cpu in gone if not on_cpu]

    def status(self) -> tuple[SegmenterStatus, ...]:
        """Those that were asked for, by name."""
        now = time.monotonic()
        with self._lock:
            return tuple(
                SegmenterStatus(name, version, (name, False) in self._loaded, now - self._used[name, False])
                for name, version in sorted(self._versions.items())
            )

    def _get(self, key: tuple[str, bool], load: Callable[[str], Segmenter]) -> Segmenter:
        with self._lock:
            found = self._loaded.get(key)
            if found is not None:
                self._used[key] = time.monotonic()
                return found
            loading = self._loading.get(key)
            if loading is None:
                loading = self._loading[key] = Once(lambda: self._made(key, load))
        try:
            return loading()
        finally:
            with self._lock:  # a failure is not kept, and what is loaded is found above
                if self._loading.get(key) is loading:
                    del self._loading[key]

    def _made(self, key: tuple[str, bool], load: Callable[[str], Segmenter]) -> Segmenter:
        begun = time.monotonic()
        try:
            made = load(key[0])
        except TatorError:
            raise
        except ImportError as error:
            raise EngineError(f"The segmenter {key[0]} needs a package that is not installed: {error}.") from error
        except Exception as error:
            if is_out_of_memory(error):
                raise
            log.exception("the segmenter %s could not be loaded", key[0])
            raise EngineError(f"The segmenter {key[0]} cannot be loaded: {error}") from error
        log.info("segmenter %s loaded in %.1f s: %s", key[0], time.monotonic() - begun, made.version)
        with self._lock:
            self._keep(key, made)
        return made

    def _keep(self, key: tuple[str, bool], segmenter: Segmenter) -> None:
        self._loaded[key] = segmenter
        self._used[key] = time.monotonic()
        self._used.setdefault((key[0], False), self._used[key])
        if not key[1]:  # the copy on the CPU is the same one
            self._versions[key[0]] = segmenter.version  # others than before its release, where its file changed
        self._let_pause(segmenter)

    def _let_pause(self, segmenter: Segmenter) -> None:
        pause = self._pause
        if pause is not None and isinstance(segmenter, Pausable):
            for part in segmenter.parts():
                part.register_forward_pre_hook(partial(_outside_autocast, pause))


def _outside_autocast(pause: Callable[[], None], part: nn.Module, _: object) -> None:
    """What is let pass computes as if nothing else were going on."""
    kind = next((parameter.device.type for parameter in part.parameters()), "cpu")
    with torch.autocast(kind, enabled=False):
        pause()
