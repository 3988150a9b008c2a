"""Boxes of pictures → crops → embeddings, in steps that a click need not wait long for."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from tator_ml.engine.crops import CropRecipe, Image
from tator_ml.engine.encoders.base import Encoder
from tator_ml.engine.lanes import About, Lane, Lanes
from tator_ml.engine.messages import EmbedAsk, Embedded, UnknownImage
from tator_ml.engine.pace import Pace
from tator_ml.images.decode import decode_image
from tator_ml.running.lease import ClickLease

FIRST_STEP, MOST_IN_STEP = 8, 64


def cut_crops(
    ask: EmbedAsk,
    encoder: Encoder,
    read: Callable[[str], bytes | None],
    max_pixels: int,
    pause: Callable[[], None] = lambda: None,
) -> list[NDArray[np.uint8]]:
    """Every crop of a request, in its order; each picture is decoded once.

    Args:
        ask: boxes of pictures.
        encoder: tells the crops' size.
        read: content hash → a picture's bytes.
        max_pixels: larger pictures are refused.
        pause: called before each picture; waits where something else is to go first.

    Raises:
        UnknownImage: a picture's bytes are not there.
        ImageError: they cannot be decoded.
    """
    recipe = CropRecipe(ask.margin, ask.square)
    crops: list[NDArray[np.uint8]] = []
    for item in ask.items:
        pause()
        data = read(item.image)
        if data is None:
            raise UnknownImage(f"The picture {item.image[:12]} is not in the store.")
        pixels: Image = decode_image(data, max_pixels)
        crops += [recipe.crop(pixels, box, encoder.size) for box in item.xyxy]
    return crops


class Stepper:
    """Embeds crops on the device thread, a fraction of a second at a time."""

    def __init__(self, lanes: Lanes, lease: ClickLease) -> None:
        self._lanes = lanes
        self._pace = Pace(lease, FIRST_STEP, MOST_IN_STEP)

    def embed(self, encoder: Encoder, crops: Sequence[NDArray[np.uint8]]) -> Embedded:
        """Embeddings of all crops, in the batch lane.

        Raises:
            Busy: too much waits in the lane.
            OutOfMemory: the encoder cannot do with what there is.
        """
        parts: list[NDArray[np.float16]] = [np.zeros((0, encoder.dim), np.float16)]
        first = 0
        while first < len(crops):
            stop = first + self._pace.next_step(encoder.version)
            work = partial(self._timed, encoder, crops[first:stop])
            about = About(what=f"embeddings of {min(stop, len(crops)) - first} boxes")
            parts.append(self._lanes.submit(Lane.BATCH, work, about).result())
            first = stop
        return Embedded(encoder.version, np.concatenate(parts))

    def _timed(self, encoder: Encoder, crops: Sequence[NDArray[np.uint8]]) -> NDArray[np.float16]:
        begun = time.perf_counter()
        embeddings = encoder.embed(crops).astype(np.float16)
        self._pace.took(encoder.version, time.perf_counter() - begun, len(crops))
        return embeddings
