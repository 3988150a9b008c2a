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
from tator_ml.vlm.coordinates import coordinates_of
from tator_ml.vlm.registry import QwenEntry
from tator_sdk.errors import TatorError
from tator_sdk.requests import QwenTraining
from tator_sdk.settings import Settings
from training.qwen.collate import Encoder

LEAST_UNITS, MOST_UNITS = 256, 1280
"""Of an image: units of merged patches (28 x 28 pixels for Qwen2.5-VL) that a picture is resized to."""
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
    """The device to train on."""
    return torch.device(choose_device(wanted or settings.device))


def load(entry: QwenEntry, settings: Settings, device: torch.device, longest: int) -> Loaded:
    """A model as it answers: the base, or with its adapter.

    Args:
        entry: of the registry.
        settings: whether a hub may be asked.
        device: to load it on.
        longest: side of pictures, pixels.

    Raises:
        BaseError: it cannot be loaded.
    """
    with _sentences(entry.model_id):
        model: Any = AutoModelForImageTextToText.from_pretrained(
            entry.model_id, dtype=dtype_of(device), local_files_only=settings.offline
        )
        if entry.adapter is not None:
            model = PeftModel.from_pretrained(model, str(entry.adapter))
        return Loaded(model.to(device).eval(), _encoder(model, entry, settings, longest))


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
    with _sentences(entry.model_id):
        model: Any = AutoModelForImageTextToText.from_pretrained(
            entry.model_id, local_files_only=settings.offline, **options
        )
        encoder = _encoder(model, entry, settings, request.max_image_dim)
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


def limit_pixels(processor: Any) -> None:
    """Bound the area that pictures are resized to, as in service; a processor with a closer bound keeps it."""
    images = processor.image_processor
    unit = (images.patch_size * images.merge_size) ** 2
    most = min(int(images.size["longest_edge"]), MOST_UNITS * unit)
    least = min(max(int(images.size["shortest_edge"]), LEAST_UNITS * unit), most)
    if most < LEAST_UNITS * unit:  # a tiny model for tests: its own bounds are closer
        least = int(images.size["shortest_edge"])
    images.size = {"shortest_edge": least, "longest_edge": most}


def _encoder(model: Any, entry: QwenEntry, settings: Settings, longest: int) -> Encoder:
    processors: Any = AutoProcessor  # without types
    processor = processors.from_pretrained(entry.model_id, local_files_only=settings.offline)
    limit_pixels(processor)
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
def _sentences(name: str) -> Iterator[None]:
    """What cannot be loaded is said in one sentence.

    Raises:
        BaseError: instead of what the libraries raise.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise BaseError(
            f"The device has too little memory for {name}; use --method qlora, a smaller --max-image-dim or another "
            "--device."
        ) from error
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        where = "is no model that can be loaded" if Path(name).exists() else "is not here and could not be downloaded"
        raise BaseError(
            f"{name} {where} ({reason[:200]}); set QWEN_MODEL_NAME or --base to a Qwen-VL's hub id, or to the folder "
            "of a downloaded one."
        ) from error
