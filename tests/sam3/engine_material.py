"""A tiny SAM 3 whose answers differ from place to place, and upstream's own classes over the same weights."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from transformers import Sam3ImageProcessor, Sam3Model, Sam3Processor, Sam3TrackerConfig, Sam3TrackerModel
from transformers.models.sam3_tracker import Sam3TrackerProcessor

from training.sam3.tiny import Shape, save_tiny

SHAPE = Shape()
WORDS = ("red circle", "blue square", "green star")


@cache
def drawn_folder(parent: Path, seed: int = 0) -> Path:
    """A tiny model in the published layout; weights as drawn at first would make nearly constant answers."""
    folder = save_tiny(parent / f"sam3-{seed}", SHAPE, WORDS, seed)
    torch.manual_seed(seed)
    path = folder / "model.safetensors"
    state = load_file(path)
    for key, value in state.items():
        if value.dim() >= 2:
            state[key] = torch.randn_like(value) * (1.5 / max(value[0].numel(), 1) ** 0.5)
        elif key.endswith("bias"):
            state[key] = torch.randn_like(value) * 0.3
    save_file(state, path, {"format": "pt"})
    return folder


def picture(seed: int = 0, size_wh: tuple[int, int] = (150, 90)) -> NDArray[np.uint8]:
    """Coarse noise: something else everywhere."""
    width, height = size_wh
    coarse = np.random.default_rng(seed).integers(0, 255, (height // 10 + 1, width // 10 + 1, 3), np.uint8)
    return np.ascontiguousarray(coarse.repeat(10, 0).repeat(10, 1)[:height, :width])


def upstream_detector(folder: Path) -> tuple[Any, Any]:
    """``Sam3Model`` and ``Sam3Processor`` as their documentation loads them."""
    return Sam3Model.from_pretrained(folder).eval(), Sam3Processor.from_pretrained(folder)


def upstream_tracker(folder: Path) -> tuple[Any, Any]:
    """``Sam3TrackerModel`` with a vision tower of its own, and its processor."""
    detector, processor = upstream_detector(folder)
    hidden = SHAPE.hidden
    config = Sam3TrackerConfig(
        vision_config=detector.config.vision_config,
        prompt_encoder_config={
            "hidden_size": hidden,
            "image_size": SHAPE.side,
            "patch_size": SHAPE.patch,
            "mask_input_channels": 4,
        },
        mask_decoder_config={
            "hidden_size": hidden,
            "mlp_dim": 4 * hidden,
            "num_attention_heads": max(1, hidden // 16),
            "iou_head_hidden_dim": hidden,
        },
    )
    tracker = Sam3TrackerModel(config).eval()
    state = {}
    for key, value in load_file(folder / "model.safetensors").items():
        key = key.replace("tracker_model.", "").replace("tracker_neck.", "vision_encoder.neck.")
        key = key.replace("detector_model.vision_encoder.backbone.", "vision_encoder.backbone.")
        if key in tracker.state_dict():
            state[key] = value
    tracker.load_state_dict(state)  # strictly
    images: Any = Sam3ImageProcessor
    side = {"height": SHAPE.side, "width": SHAPE.side}
    return tracker, Sam3TrackerProcessor(images(size=side, mask_size=processor.image_processor.mask_size))
