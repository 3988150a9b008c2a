"""SAM 3 (https://arxiv.org/abs/2511.16719) on single pictures through ``transformers``.

Clicks are answered as by ``Sam3TrackerModel`` with ``Sam3TrackerProcessor``, phrases and exemplars by
:mod:`sam3_concepts`; one embedding serves both.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from tator_ml.engine.segmenters.base import Decoded, Embedding, Prompts
from tator_ml.engine.segmenters.sam3_concepts import Sam3Concepts
from tator_ml.sam3.files import Sam3Error, Sam3Files, folder_files
from tator_ml.sam3.loading import Sam3, load_sam3


class Sam3Segmenter:
    """A SAM 3; threads may share it.

    Attributes:
        sam: detector, tracker and processor.
        version: see :class:`base.Segmenter`.
    """

    def __init__(self, sam: Sam3, version: str) -> None:
        self.sam = sam
        self.version = version
        self._side = sam.processor.target_size
        self._concepts = Sam3Concepts(sam.detector, sam.processor)

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        device: torch.device = self.sam.detector.device
        return device

    def parts(self) -> list[nn.Module]:
        """The backbone's layers; see :class:`base.Pausable`."""
        return list(self.sam.detector.vision_encoder.backbone.layers)

    def concepts(self) -> Sam3Concepts:
        """See :class:`base.FindsConcepts`."""
        return self._concepts

    @torch.no_grad()
    def encode(self, image: NDArray[np.uint8]) -> Embedding:
        """Picture (H, W, 3) uint8 RGB → what clicks and concepts need.

        The detector's neck is computed from ``hidden`` when concepts are asked, once for all of a question: kept, its
        levels would make 111 MB of a picture at 1008 px instead of 21.

        Returns:
            ``hidden`` (1, 72, 72, 1024), the backbone's output; and with a tracker ``image_embed`` (1, 256, 72, 72),
            ``high_res_0`` (1, 32, 288, 288) and ``high_res_1`` (1, 64, 144, 144).
        """
        height, width = image.shape[:2]
        pixels = self.sam.processor.image_processor(
            images=image, input_data_format="channels_last", return_tensors="pt"
        )
        square = pixels["pixel_values"].to(self.device)
        backbone = self.sam.detector.vision_encoder.backbone
        patch = backbone.config.patch_size
        hidden = backbone(square).last_hidden_state.view(1, square.shape[-2] // patch, square.shape[-1] // patch, -1)
        tensors = {"hidden": hidden, **self._for_clicks(hidden)}
        # Contiguous, so that they can be stored as safetensors.
        return Embedding({name: tensor.contiguous() for name, tensor in tensors.items()}, (width, height), self.version)

    def _for_clicks(self, hidden: Tensor) -> dict[str, Tensor]:
        """As ``Sam3TrackerModel.get_image_embeddings``."""
        tracker = self.sam.tracker
        if tracker is None:
            return {}
        layers, used = tracker.vision_encoder.neck.fpn_layers, len(tracker.backbone_feature_sizes)
        fine, middle, coarse = (layer(hidden.permute(0, 3, 1, 2)) for layer in layers[:used])
        if len(layers) == used:
            # Upstream adds it to the neck's last level, which of four is one that clicks do not use.
            coarse = coarse + tracker.no_memory_embedding.view(1, -1, 1, 1)
        decoder = tracker.mask_decoder
        return {"image_embed": coarse, "high_res_0": decoder.conv_s0(fine), "high_res_1": decoder.conv_s1(middle)}

    @torch.no_grad()
    def decode(self, embedding: Embedding, prompts: Prompts, multimask: bool) -> Decoded:
        """Prompts in pixels of the picture → logits (B, K, 288, 288), as ``Sam3TrackerModel``.

        Without ``multimask`` an unstable single mask gives way to the best of three, as upstream. A point labelled -1
        is SAM's own "not a point" token.

        Raises:
            Sam3Error: the model has no tracker.
        """
        tracker = self.sam.tracker
        if tracker is None:
            raise Sam3Error(
                f"{self.version} finds phrases, but has no tracker that answers clicks: name a folder in the published "
                "layout as SAM3_MODEL_ID, or choose another segmenter for clicks."
            )
        out = tracker(
            image_embeddings=[
                embedding.tensors[name].to(self.device) for name in ("high_res_0", "high_res_1", "image_embed")
            ],
            multimask_output=multimask,
            **self._inputs(prompts, embedding.size_wh),
        )
        return Decoded(out.pred_masks[0], out.iou_scores[0])

    def _inputs(self, prompts: Prompts, size_wh: tuple[int, int]) -> dict[str, Tensor]:
        """Prompts in the square that the model looks at, as ``Sam3TrackerProcessor``."""
        scale = torch.tensor([self._side / size_wh[0], self._side / size_wh[1]])
        inputs: dict[str, Tensor] = {}
        if prompts.points is not None:
            if prompts.labels is None:
                raise ValueError("points need labels")
            points = torch.as_tensor(prompts.points, dtype=torch.float32) * scale
            inputs["input_points"] = points[None]
            inputs["input_labels"] = torch.as_tensor(prompts.labels, dtype=torch.int64)[None]
        if prompts.boxes is not None:
            boxes = torch.as_tensor(prompts.boxes, dtype=torch.float32).reshape(-1, 2, 2) * scale
            inputs["input_boxes"] = boxes.reshape(1, -1, 4)
        return {name: tensor.to(self.device) for name, tensor in inputs.items()}

    def full_size(self, embedding: Embedding, low_res: Tensor) -> Tensor:
        """Logits (K, 288, 288) → (K, H, W) float32, as ``Sam3TrackerProcessor.post_process_masks``."""
        width, height = embedding.size_wh
        return F.interpolate(low_res.float()[None], (height, width), mode="bilinear", align_corners=False)[0]


def load(path: Path, device: torch.device | str, name: str) -> Sam3Segmenter:
    """Load ``sam3`` from a folder in the published layout, or of a bare ``Sam3Model``, which answers no clicks.

    Raises:
        Sam3Error: files are missing, damaged or of another kind.
    """
    return load_files(folder_files(path), device, name)


def load_files(files: Sam3Files, device: torch.device | str, name: str) -> Sam3Segmenter:
    """Load ``sam3`` or a tuned one from its files; ``name`` is what the version begins with.

    Raises:
        Sam3Error, WeightsUnreadable: they are damaged or of another kind.
    """
    any_device: Any = device
    return Sam3Segmenter(load_sam3(files, any_device), f"{name}-{files.digest()}")
