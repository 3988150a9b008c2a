"""The models that classify: encoders by name and heads by version, each loaded when it is first needed."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping

from tator_ml.engine.classify import HeadClassifier
from tator_ml.engine.encoders.base import Encoder
from tator_ml.engine.head import Head
from tator_ml.engine.messages import EngineError, UnknownHead

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
            EngineError: its encoder is another one than it was fitted on.
        """
        with self._lock:
            head = self._heads.get(version)
            if head is None:
                raise UnknownHead(f"The head {version} is not loaded.")
            self._heads.move_to_end(version)
        return HeadClassifier(self.encoder(head.encoder_name), head)

    def put_head(self, files: Mapping[str, bytes]) -> str:
        """Take in a head by its files; returns its version.

        Raises:
            HeadError: the files are damaged.
            EngineError: its encoder cannot be loaded, or is another one than it was fitted on.
        """
        head = Head.of_files(files, "the engine")
        try:
            HeadClassifier(self.encoder(head.encoder_name), head)
        except EngineError:
            raise
        except Exception as error:  # whatever a model's loader raises
            raise EngineError(f"The head {head.version} cannot be used: {error}") from error
        with self._lock:
            self._heads[head.version] = head
            while len(self._heads) > HEADS_KEPT:
                self._heads.popitem(last=False)
        return head.version

    def _loaded(self, name: str) -> Encoder | None:
        with self._lock:
            if name in self._encoders:
                self._encoders.move_to_end(name)
            return self._encoders.get(name)
