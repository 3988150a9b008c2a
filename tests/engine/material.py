"""Engines for tests, over the wire's own segmenter."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tator_ml.engine.engine import Engine
from tator_ml.engine.messages import Ask, Prompt
from tator_ml.engine.models import Segmenters
from tator_ml.engine.segmenters.base import Decoded, Embedding, Prompts, Segmenter
from tator_ml.images.store import ImageStore
from tator_sdk.settings import Settings
from tests.wire.conftest import BrightSegmenter

POINT = Prompt(((256.0, 192.0),), (True,))
OBJECT = (192, 120, 320, 264)
BOX = (185.0, 112.0, 330.0, 272.0)


class Bright(BrightSegmenter):
    """With a version of its own, counting what it encodes, and short of memory as often as told."""

    def __init__(self, version: str = "bright-1") -> None:
        super().__init__()
        self.version = version
        self.encoded = 0
        self.short = {"encode": 0, "decode": 0, "full_size": 0}
        self.fits = 1000
        self.gate = threading.Event()
        self.gate.set()

    def encode(self, image: NDArray[np.uint8]) -> Embedding:
        assert self.gate.wait(10)
        self._fail("encode")
        self.encoded += 1
        return super().encode(image)

    def decode(self, embedding: Embedding, prompts: Prompts, multimask: bool) -> Decoded:
        self._fail("decode")
        if len(prompts) > self.fits:
            raise torch.OutOfMemoryError(f"{len(prompts)} prompts do not fit")
        return super().decode(embedding, prompts, multimask)

    def full_size(self, embedding: Embedding, low_res: torch.Tensor) -> torch.Tensor:
        self._fail("full_size")
        return super().full_size(embedding, low_res)

    def _fail(self, what: str) -> None:
        if self.short[what] > 0:
            self.short[what] -= 1
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\nmore")


def store_of(home: Path) -> ImageStore:
    return ImageStore(home / "images", 10**9)


def engine_of(home: Path, segmenter: Segmenter | Segmenters, classifier: Any = None, **changes: Any) -> Engine:
    return Engine(Settings(home=home, **changes), store_of(home), segmenter, classifier)


def several(*names: str, load_on_cpu: Callable[[str], Segmenter] | None = None) -> tuple[Segmenters, list[Bright]]:
    """A holder whose first name is the engine's own, and what it has loaded so far."""
    made: list[Bright] = []

    def load(name: str) -> Segmenter:
        made.append(Bright(f"{name}-1"))
        return made[-1]

    holder = Segmenters(names[0], load, load_on_cpu=load_on_cpu)
    for name in names:
        holder.get(name)
    return holder, made


def ask(image: str, **changes: Any) -> Ask:
    return Ask(image, changes.pop("prompts", (POINT,)), **changes)
