"""A tiny SAM 3 in the published layout: real classes, real tokenizer and processor, random weights.

For tests, benchmarks and trials where the published model cannot be had: whatever loads, asks or tunes SAM 3 does the
same with this one in milliseconds. It knows nothing until it is trained.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import (
    CLIPTokenizer,
    Sam3Config,
    Sam3ImageProcessor,
    Sam3Processor,
    Sam3TrackerVideoConfig,
    Sam3VideoConfig,
    Sam3VideoModel,
)

from training.sam3.tiny_start import prepare

_START, _END = "<|startoftext|>", "<|endoftext|>"
_LONGEST_PHRASE = 32
"""Tokens; the published processor pads to it."""


@dataclass(frozen=True)
class Shape:
    """How large a tiny model is; the defaults make one of half a million parameters.

    Attributes:
        side: of the square that pictures are stretched to, pixels; a multiple of ``patch``.
        patch: side of a patch, pixels.
        vision_hidden: width of the vision tower; ``vision_layers`` its depth.
        vision_layers: see there; the last one sees the whole picture, the others windows.
        window: side of a window, patches.
        hidden: width of everything behind the vision tower: a multiple of 8.
        layers: of detector's encoder and decoder each.
        queries: objects that can be found at once.
        text_hidden: width of the text encoder; ``text_layers`` its depth.
        text_layers: see there.
        tokens: of the vocabulary.
        dropout: of the detector in training.
    """

    side: int = 112
    patch: int = 14
    vision_hidden: int = 64
    vision_layers: int = 2
    window: int = 4
    hidden: int = 32
    layers: int = 2
    queries: int = 12
    text_hidden: int = 32
    text_layers: int = 1
    tokens: int = 400
    dropout: float = 0.1

    @property
    def grid(self) -> int:
        """Patches along a side."""
        return self.side // self.patch


def save_tiny(
    folder: Path, shape: Shape | None = None, words: Iterable[str] = (), seed: int = 0, prepared: bool = False
) -> Path:
    """Write a tiny model with its processor, as ``from_pretrained`` reads it.

    Args:
        folder: where to; made if missing.
        shape: its size.
        words: phrases that the tokenizer learns its merges from, so that their tokens are few. What they lack is
            spelled in bytes.
        seed: of the weights.
        prepared: begin with weights that learn fast, see :mod:`training.sam3.tiny_start`.

    Returns:
        ``folder``.
    """
    shape = shape or Shape()
    processor = make_processor(make_tokenizer(list(words), shape.tokens), shape)
    torch.manual_seed(seed)
    model = make_model(processor.tokenizer, shape)
    if prepared:
        prepare(model.detector_model)
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def make_tokenizer(words: Sequence[str], tokens: int) -> Any:
    """A lower-casing byte-level BPE of CLIP's kind, learnt from ``words``."""
    learner = Tokenizer(models.BPE(end_of_word_suffix="</w>", unk_token=_END))
    learner.normalizer = normalizers.Lowercase()
    learner.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    learner.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    # both forms of every byte, inside of a word and at its end
    learner.train_from_iterator(
        words,
        trainers.BpeTrainer(
            vocab_size=max(tokens, 2 * len(alphabet) + 2) if words else 2 * len(alphabet) + 2,
            special_tokens=[*sorted(alphabet), *(f"{one}</w>" for one in sorted(alphabet))],
            initial_alphabet=sorted(alphabet),
            end_of_word_suffix="</w>",
            show_progress=False,
        ),
    )
    learnt = json.loads(learner.to_str())["model"]
    vocab = dict(learnt["vocab"])
    for special in (_START, _END):
        vocab[special] = len(vocab)
    merges: Any = [tuple(one) if isinstance(one, list) else tuple(one.split(" ")) for one in learnt["merges"]]
    return CLIPTokenizer(
        vocab=vocab, merges=merges, bos_token=_START, eos_token=_END, unk_token=_END, pad_token=_END,
        model_max_length=_LONGEST_PHRASE,
    )  # fmt: skip


def make_processor(tokenizer: Any, shape: Shape) -> Any:
    """Image processor and tokenizer in one."""
    square = {"height": shape.side, "width": shape.side}
    low = {"height": 4 * shape.grid, "width": 4 * shape.grid}
    make_images: Any = Sam3ImageProcessor
    make: Any = Sam3Processor
    return make(make_images(size=square, mask_size=low), tokenizer)


def make_model(tokenizer: Any, shape: Shape) -> Any:
    """Detector and tracker over one vision tower, with random weights, in evaluation mode."""
    detector, tracker = _detector(tokenizer, shape), _tracker(shape)
    make: Any = Sam3VideoModel
    both = Sam3VideoConfig(detector_config=detector, tracker_config=tracker, low_res_mask_size=4 * shape.grid)
    return make(both).eval()


def _vision(shape: Shape) -> dict[str, Any]:
    backbone = {
        "model_type": "sam3_vit_model",
        "hidden_size": shape.vision_hidden,
        "intermediate_size": 3 * shape.vision_hidden,
        "num_hidden_layers": shape.vision_layers,
        "num_attention_heads": max(1, shape.vision_hidden // 16),
        "image_size": shape.side,
        "patch_size": shape.patch,
        "window_size": shape.window,
        "global_attn_indexes": [shape.vision_layers - 1],
        "pretrain_image_size": shape.side,
    }
    return {
        "model_type": "sam3_vision_model",
        "backbone_config": backbone,
        "fpn_hidden_size": shape.hidden,
        "backbone_feature_sizes": [[factor * shape.grid] * 2 for factor in (4, 2, 1)],
    }


def _heads(shape: Shape) -> int:
    return max(1, shape.hidden // 16)


def _detector(tokenizer: Any, shape: Shape) -> Sam3Config:
    heads = _heads(shape)
    width: dict[str, Any] = {
        "hidden_size": shape.hidden,
        "num_attention_heads": heads,
        "intermediate_size": 4 * shape.hidden,
        "dropout": shape.dropout,
    }
    return Sam3Config(
        vision_config=_vision(shape),
        text_config={
            "model_type": "clip_text_model",
            "vocab_size": len(tokenizer),
            "hidden_size": shape.text_hidden,
            "intermediate_size": 4 * shape.text_hidden,
            "projection_dim": shape.text_hidden,
            "num_hidden_layers": shape.text_layers,
            "num_attention_heads": max(1, shape.text_hidden // 16),
            "max_position_embeddings": _LONGEST_PHRASE,
            "hidden_act": "gelu",
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        },
        geometry_encoder_config={**width, "num_layers": 1, "roi_size": 3},
        detr_encoder_config={**width, "num_layers": shape.layers},
        detr_decoder_config={**width, "num_layers": shape.layers, "num_queries": shape.queries},
        mask_decoder_config={"hidden_size": shape.hidden, "num_attention_heads": heads},
    )


def _tracker(shape: Shape) -> Sam3TrackerVideoConfig:
    heads = _heads(shape)
    return Sam3TrackerVideoConfig(
        vision_config=_vision(shape),
        prompt_encoder_config={
            "hidden_size": shape.hidden,
            "image_size": shape.side,
            "patch_size": shape.patch,
            "mask_input_channels": 4,
        },
        mask_decoder_config={
            "hidden_size": shape.hidden,
            "mlp_dim": 4 * shape.hidden,
            "num_attention_heads": heads,
            "iou_head_hidden_dim": shape.hidden,
        },
        memory_attention_hidden_size=shape.hidden,
        memory_attention_num_layers=1,
        memory_attention_feed_forward_hidden_size=2 * shape.hidden,
        memory_attention_rope_feat_sizes=[shape.grid, shape.grid],
        memory_encoder_hidden_size=shape.hidden,
        memory_encoder_output_channels=8,
        mask_downsampler_embed_dim=shape.hidden,
        memory_fuser_num_layers=1,
        memory_fuser_embed_dim=shape.hidden,
        memory_fuser_intermediate_dim=2 * shape.hidden,
    )
