"""A tiny Qwen-VL in the published layout: real classes, real tokenizer and processor, random weights.

For tests, benchmarks and trials where no published model can be had: everything that loads, prompts or tunes a Qwen
does the same with this one in milliseconds. It knows nothing until it is trained.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import (
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2Tokenizer,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
)
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

Family = Literal["qwen2_5_vl", "qwen3_vl"]
FAMILIES: tuple[Family, ...] = ("qwen2_5_vl", "qwen3_vl")

SPECIAL = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>",
    "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>",
    "<|image_pad|>", "<|video_pad|>",
)  # fmt: skip
"""Special tokens of the published tokenizers, in their order."""

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif 'text' in part %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""The published template without videos and tools."""


@dataclass(frozen=True)
class Shape:
    """How large a tiny model is; the defaults make one of 0.4 million parameters.

    Attributes:
        hidden: width of the language model; ``layers`` its depth, with heads of ``head`` channels.
        layers: see there.
        head: see there; a multiple of 8, for the three parts of the rotary embedding.
        vision_hidden: width of the vision tower; ``vision_depth`` its depth.
        vision_depth: see there.
        max_side: pictures are resized to the area of a square of this side at most.
        min_side: to that of one of this side at least.
        tokens: of the vocabulary, the special ones among them.
    """

    hidden: int = 64
    layers: int = 2
    head: int = 16
    vision_hidden: int = 64
    vision_depth: int = 2
    max_side: int = 224
    min_side: int = 56
    tokens: int = 512


def save_tiny(
    folder: Path, family: Family = "qwen2_5_vl", shape: Shape | None = None, words: Iterable[str] = (), seed: int = 0
) -> Path:
    """Write a tiny model with its processor, as ``from_pretrained`` reads it.

    Args:
        folder: where to; made if missing.
        family: ``model_type`` of the configuration.
        shape: its size.
        words: texts that the tokenizer learns its merges from, beside digits and brackets: prompts and answers whose
            tokens should be few. What they lack is spelled in bytes.
        seed: of the weights.

    Returns:
        ``folder``.
    """
    shape = shape or Shape()
    tokenizer = make_tokenizer([*words, *_ANSWERS], shape.tokens)
    processor = make_processor(tokenizer, family, shape)
    torch.manual_seed(seed)
    model = make_model(tokenizer, family, shape)
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


_ANSWERS = ('[{"bbox_2d": [0, 1, 2, 3], "label": "', '[{"bbox_2d":[4,5,6,7],"label":"', '"}, {"point_2d": [8, 9]', "[]")


def make_tokenizer(words: Sequence[str], tokens: int) -> Any:
    """A byte-level BPE of the published kind (digits one by one), learnt from ``words``."""
    learner = Tokenizer(models.BPE())
    learner.normalizer = normalizers.NFC()
    split = pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), behavior="isolated")
    learner.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)])
    learner.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    learner.train_from_iterator(
        words,
        trainers.BpeTrainer(vocab_size=tokens - len(SPECIAL), initial_alphabet=alphabet, show_progress=False),
    )
    learnt = learner.get_vocab()
    merges = [tuple(pair) for pair in _merges(learner)]
    make: Any = Qwen2Tokenizer  # its stubs know neither pairs nor special tokens
    tokenizer = make(
        vocab=learnt,
        merges=merges,
        eos_token="<|im_end|>",  # noqa: S106
        pad_token="<|endoftext|>",  # noqa: S106
        additional_special_tokens=list(SPECIAL),
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def make_processor(tokenizer: Any, family: Family, shape: Shape) -> Any:
    """Image processor, tokenizer and chat template of a family in one."""
    patch = _PATCH[family]
    size = {"shortest_edge": shape.min_side**2, "longest_edge": shape.max_side**2}
    mean_std = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3} if family == "qwen3_vl" else {}
    make_images: Any = Qwen2VLImageProcessor
    make: Any = Qwen3VLProcessor if family == "qwen3_vl" else Qwen2_5_VLProcessor
    make_videos: Any = Qwen3VLVideoProcessor if family == "qwen3_vl" else Qwen2VLVideoProcessor
    images = make_images(size=size, patch_size=patch, merge_size=_MERGE, **mean_std)
    return make(images, tokenizer, make_videos(), chat_template=CHAT_TEMPLATE)


def make_model(tokenizer: Any, family: Family, shape: Shape) -> Any:
    """The family's own class with random weights, in evaluation mode."""
    number = tokenizer.convert_tokens_to_ids
    heads = shape.hidden // shape.head
    half = shape.head // 2
    ends = {"eos_token_id": number("<|im_end|>"), "pad_token_id": number("<|endoftext|>"), "bos_token_id": None}
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": shape.hidden,
        "intermediate_size": 3 * shape.hidden,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "max_position_embeddings": 4096,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 10_000.0,
            "mrope_section": [half - 2 * (3 * half // 8), 3 * half // 8, 3 * half // 8],
        },
        "tie_word_embeddings": True,
        **ends,
    }
    vision: dict[str, Any] = {
        "depth": shape.vision_depth,
        "hidden_size": shape.vision_hidden,
        "intermediate_size": 3 * shape.vision_hidden,
        "num_heads": max(1, shape.vision_hidden // 32),
        "patch_size": _PATCH[family],
        "spatial_merge_size": _MERGE,
        "temporal_patch_size": 2,
        "out_hidden_size": shape.hidden,
    }
    ids = {
        "image_token_id": number("<|image_pad|>"),
        "video_token_id": number("<|video_pad|>"),
        "vision_start_token_id": number("<|vision_start|>"),
        "vision_end_token_id": number("<|vision_end|>"),
        "tie_word_embeddings": True,
        **ends,
    }
    if family == "qwen3_vl":
        text["head_dim"] = shape.head
        text["rope_parameters"]["mrope_interleaved"] = True
        side = shape.max_side // _PATCH[family]
        vision |= {"num_position_embeddings": side**2, "deepstack_visual_indexes": [0]}
        model: Any = Qwen3VLForConditionalGeneration(Qwen3VLConfig(text_config=text, vision_config=vision, **ids))
    else:
        last = shape.vision_depth - 1
        vision |= {"fullatt_block_indexes": [last], "window_size": 8 * _PATCH[family]}
        model = Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(text_config=text, vision_config=vision, **ids))
    model.generation_config.update(do_sample=False, **ends)
    return model.eval()


_PATCH: dict[str, int] = {"qwen2_5_vl": 14, "qwen3_vl": 16}
_MERGE = 2


def _merges(tokenizer: Tokenizer) -> list[Sequence[str]]:
    found: list[Sequence[str]] = json.loads(tokenizer.to_str())["model"]["merges"]
    return found
