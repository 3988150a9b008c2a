"""All boxes of a picture → masks, in decoder batches that a click need not wait long for."""

from __future__ import annotations

import math
import time
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tator_ml.engine.lanes import About, Lane, Lanes
from tator_ml.engine.masks import BoxMask, SegmentAsk, Segmented
from tator_ml.engine.pace import Pace
from tator_ml.engine.segmenters.base import Embedding, Prompts, Segmenter
from tator_ml.engine.supply import Prepared, Supply
from tator_ml.engine.warm import WarmImage
from tator_ml.running.lease import ClickLease
from tator_sdk.geometry import clip_xyxy

__all__ = ["BatchSegmenter", "SegmentAsk", "Segmented"]

FIRST_STEP, MOST_IN_STEP = 4, 64
MOST_LOGITS = 2**26  # in the picture's resolution at once: 256 MiB
MOST_MASK_BYTES = 2**28  # of a step's masks in the picture's resolution, a byte a pixel, until they are packed


class BatchSegmenter:
    """Decodes boxes on the device thread, a fraction of a second at a time."""

    def __init__(self, lanes: Lanes, supply: Supply, lease: ClickLease) -> None:
        self._lanes = lanes
        self._supply = supply
        self._pace = Pace(lease, FIRST_STEP, MOST_IN_STEP)

    def segment(self, segmenter: Segmenter, ask: SegmentAsk) -> Segmented:
        """Masks of all boxes of a picture; decoding of the file and packing happen on the caller's thread.

        Raises:
            UnknownImage: the picture's bytes are not in the store.
            ImageError: they cannot be decoded.
            Busy: too much work waits already.
        """
        prepared = self._supply.prepare(segmenter.version, ask.image, pixels=False)
        embedding, came_from = self._embedding(segmenter, prepared)
        boxes = [clip_xyxy(box, embedding.size_wh) for box in ask.boxes]
        found: list[tuple[BoxMask, ...]] = []
        most = max(1, MOST_MASK_BYTES // (embedding.size_wh[0] * embedding.size_wh[1] * ask.max_results))
        while len(found) < len(boxes):
            some = boxes[len(found) : len(found) + min(self._pace.next_step(segmenter.version), most)]
            work = partial(self._decoded, segmenter, embedding, np.array(some, np.float32), ask)
            about = About(what=f"masks of {len(some)} boxes")
            made, quality = self._lanes.submit(Lane.BATCH, work, about).result()
            # on a CPU the other cores enlarge masks while the device's thread goes on
            masks = made if isinstance(made, np.ndarray) else _enlarged(segmenter, embedding, made, ask)
            found += [_packed(masks[row], quality[row], ask) for row in range(len(some))]
        return Segmented(tuple(found), embedding.size_wh, segmenter.version, came_from)

    def _embedding(self, segmenter: Segmenter, prepared: Prepared | WarmImage) -> tuple[Embedding, str]:
        if isinstance(prepared, WarmImage):
            return prepared.embedding, "memory"
        work = partial(self._supply.embedding, segmenter, prepared)
        return self._lanes.submit(Lane.BATCH, work, About(what="encoding for a job")).result()

    def _decoded(
        self, segmenter: Segmenter, embedding: Embedding, boxes: NDArray[np.float32], ask: SegmentAsk
    ) -> tuple[NDArray[np.bool_] | Tensor, NDArray[np.float32]]:
        """On the device's thread: masks (B, K, H, W) and their predicted IoU (B, K), best first.

        From a CPU come logits (B, K, h, w) instead, which are still to be enlarged.
        """
        begun = time.perf_counter()
        decoded = segmenter.decode(embedding, Prompts(boxes=boxes), multimask=ask.max_results > 1)
        order = torch.argsort(decoded.iou, dim=1, descending=True)[:, : ask.max_results]
        quality = decoded.iou.gather(1, order).clamp(0, 1).float().cpu().numpy()
        chosen = decoded.low_res[torch.arange(len(boxes), device=order.device)[:, None], order]
        made = chosen if chosen.device.type == "cpu" else _enlarged(segmenter, embedding, chosen, ask)
        self._pace.took(segmenter.version, time.perf_counter() - begun, len(boxes))
        return made, quality


def _enlarged(segmenter: Segmenter, embedding: Embedding, low_res: Tensor, ask: SegmentAsk) -> NDArray[np.bool_]:
    """Logits (B, K, h, w) → masks (B, K, H, W) in the picture's size."""
    count, kept, low_h, low_w = low_res.shape
    width, height = embedding.size_wh
    together = max(1, MOST_LOGITS // (width * height))
    threshold = math.log(ask.mask_threshold / (1 - ask.mask_threshold))
    masks = [
        (segmenter.full_size(embedding, part) > threshold).cpu().numpy()
        for part in low_res.reshape(count * kept, low_h, low_w).split(together)
    ]
    return np.asarray(np.concatenate(masks).reshape(count, kept, height, width))


def _packed(masks: NDArray[np.bool_], quality: NDArray[np.float32], ask: SegmentAsk) -> tuple[BoxMask, ...]:
    found = [BoxMask.pack(mask, float(score)) for mask, score in zip(masks, quality, strict=True)]
    return tuple(one for one in found if one is not None)
