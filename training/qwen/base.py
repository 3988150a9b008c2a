"""The model that is tuned: loaded, put into 4 bits where asked, and given an adapter."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model, prepare_model_for_kbit_training
from transformers import AutoModelForImageTextToText, AutoProcessor, BitsAndBytesConfig

from tator_ml.engine.loading import choose_device
from tator_ml.engine.memory import is_out_of_memory
from tator_ml.vlm.coordinates import coordinates_of
from tator_ml.vlm.loading import find
from tator_ml.vlm.model import bound
from tator_ml.vlm.registry import QwenEntry
from tator_sdk.errors import TatorError
from tator_sdk.qwen_request import QwenTraining
from tator_sdk.settings import Settings
from training.qwen.collate import Encoder

MOST_ASPECT = 199
"""Of a picture's sides; the processors of the family refuse 200."""
LARGE = 100_000_000
"""Weights from which gradient checkpointing pays."""


class BaseError(TatorError):
    """A model cannot be loaded or tuned; the message says what to do."""


@dataclass(frozen=True, eq=False)
class Loaded:
    """A model with what it is asked through.

    Attributes:
        model: a transformers model, or one of peft around it.
        encoder: makes its inputs.
    """

    model: Any
    encoder: Encoder


def device_of(settings: Settings, wanted: str | None) -> torch.device:
    """The device to train on: the one asked for, else that of Qwen, else the engine's."""
    named = wanted or (settings.qwen_device if settings.qwen_device != "auto" else settings.device)
    return torch.device(choose_device(named))


def load(entry: QwenEntry, settings: Settings, device: torch.device, longest: int) -> Loaded:
    """A model as it answers, adapter and all, for questions in batches (:func:`training.qwen.evaluate.answers`).

    Args:
        entry: of the registry.
        settings: where models lie, and bounds of pictures.
        device: to load it on.
        longest: side of pictures, pixels.

    Raises:
        TatorError: it cannot be loaded.
    """
    folder = find(settings, entry.model_id)
    with _sentences(folder):
        model: Any = AutoModelForImageTextToText.from_pretrained(
            folder, dtype=dtype_of(device), local_files_only=True, trust_remote_code=False, use_safetensors=True
        )
        if entry.adapter is not None:
            model = PeftModel.from_pretrained(model, str(entry.adapter))
        return Loaded(model.to(device).eval(), _encoder(model, folder, settings, longest))


def load_to_train(entry: QwenEntry, request: QwenTraining, settings: Settings, device: torch.device) -> Loaded:
    """The base with what is to be learned: an adapter around it, or all of its own weights.

    Raises:
        BaseError: it cannot be loaded, is an adapter itself, or the device cannot hold it in 4 bits.
    """
    if entry.adapter is not None:
        raise BaseError(
            f"{entry.id} is an adapter, and one is not put upon another; give its base, --base {entry.model_id}, or "
            f"`tator models qwen export {entry.id}` and give the folder."
        )
    options: dict[str, Any] = {"dtype": torch.float32 if request.method == "whole" else dtype_of(device)}
    if request.method == "qlora":
        options |= _four_bits(device)
    folder = find(settings, entry.model_id)
    with _sentences(folder):
        model: Any = AutoModelForImageTextToText.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, use_safetensors=True, **options
        )
        encoder = _encoder(model, folder, settings, request.max_image_dim)
    if request.method == "whole":
        return Loaded(model.to(device), encoder)
    if request.method == "qlora":
        prepare: Any = prepare_model_for_kbit_training  # without types
        model = prepare(model, use_gradient_checkpointing=False)
    else:
        model = model.to(device)
    return Loaded(with_adapter(model, request), encoder)


def with_adapter(model: Any, request: QwenTraining) -> Any:
    """The model with a fresh adapter, which alone learns.

    Raises:
        BaseError: the model has none of the projections.
    """
    try:
        return get_peft_model(
            model,
            LoraConfig(
                r=request.rank,
                lora_alpha=request.alpha,
                lora_dropout=request.dropout,
                target_modules=list(request.targets),
                task_type="CAUSAL_LM",
            ),
        )
    except ValueError as error:
        raise BaseError(f"The model has no projections named {', '.join(request.targets)}; name others.") from error


def dtype_of(device: torch.device) -> torch.dtype:
    """What weights that are not trained stand in."""
    return torch.bfloat16 if device.type == "cuda" and torch.cuda.is_bf16_supported() else torch.float32


def checkpoints_gradients(model: Any, request: QwenTraining) -> bool:
    """Whether activations are computed a second time instead of being kept."""
    if request.gradient_checkpointing != "auto":
        return request.gradient_checkpointing == "on"
    return bool(sum(weights.numel() for weights in model.parameters()) > LARGE)


def _encoder(model: Any, folder: Path, settings: Settings, longest: int) -> Encoder:
    processors: Any = AutoProcessor  # without types
    processor = processors.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    bound(processor, settings.qwen_min_visual_tokens, settings.qwen_max_visual_tokens)
    return Encoder(processor, coordinates_of(model.config.model_type), longest)


def _four_bits(device: torch.device) -> dict[str, Any]:
    try:
        import bitsandbytes  # noqa: F401
    except (ImportError, RuntimeError, OSError) as error:
        raise BaseError(f"QLoRA needs bitsandbytes, which does not load here ({error}); use --method lora.") from error
    if device.type not in {"cuda", "cpu", "xpu"}:
        raise BaseError(f"bitsandbytes has no 4-bit weights on {device.type}; use --method lora.")
    compute = dtype_of(device)
    configure: Any = BitsAndBytesConfig  # without types
    quantised = configure(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=compute
    )
    return {"quantization_config": quantised, "device_map": {"": str(device)}, "dtype": compute}


@contextmanager
def _sentences(folder: Path) -> Iterator[None]:
    """What cannot be loaded is said in one sentence.

    Raises:
        BaseError: instead of what the libraries raise.
    """
    try:
        yield
    except TatorError:
        raise
    except Exception as error:  # a parser, a constructor or a tensor's shape, each in its way
        if is_out_of_memory(error):
            raise BaseError(
                f"The device has too little memory for the model in {folder}; use --method qlora, a smaller "
                "--max-image-dim or another --device."
            ) from error
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise BaseError(f"The model in {folder} is damaged or of another kind: {said.rstrip('.')}.") from error
