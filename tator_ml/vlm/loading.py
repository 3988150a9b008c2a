"""A hub id or folder, and perhaps an adapter → a model that can be asked."""

from __future__ import annotations

import hashlib
import json
import logging
import re
from pathlib import Path
from typing import Any

import torch
import transformers
from peft import PeftModel

from tator_ml.engine.memory import is_out_of_memory
from tator_ml.vlm.coordinates import coordinates_of
from tator_ml.vlm.model import Vlm, VlmError, bound
from tator_sdk.errors import TatorError
from tator_sdk.settings import Settings

log = logging.getLogger(__name__)

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
FILES = ["*.json", "*.safetensors", "*.jinja", "*.txt"]
"""Of a repository: configuration, weights, tokenizer and chat template."""

_HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")
_WHOLE_BYTES, _SAMPLE_BYTES, _SAMPLES = 2**26, 2**16, 64


def load_vlm(
    settings: Settings,
    model_id: str,
    device: str,
    adapter: Path | None = None,
    name: str | None = None,
    longest_side: int | None = None,
) -> Vlm:
    """Load a model. Code that lies beside its weights is not run.

    Args:
        settings: where models lie, whether the hub may be asked, and bounds of pictures.
        model_id: a folder in the published layout, or a repository on the hub.
        device: where it is to compute.
        adapter: folder of a LoRA adapter in peft's layout, which is merged into it.
        name: what the version begins with; by default the last part of ``model_id``.
        longest_side: see :class:`Vlm`.

    Raises:
        VlmError: files are missing or damaged, or cannot be fetched.
        UnknownFamily: it is none of those whose coordinates are known.
    """
    folder = find(settings, model_id)
    if adapter is not None:
        for file in (ADAPTER_CONFIG, ADAPTER_WEIGHTS):
            if not (adapter / file).is_file():
                raise VlmError(f"Put {file} into {adapter.absolute()}, or choose another model: it is not there.")
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # it would fill the log
    version = f"{name or Path(model_id).name}-{weights_digest(folder, adapter)}"
    try:
        config: Any = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        coordinates_of(config.model_type)  # before gigabytes are read
        processor: Any = transformers.AutoProcessor.from_pretrained(  # type: ignore[no-untyped-call]
            folder, local_files_only=True, trust_remote_code=False
        )
        bound(processor, settings.qwen_min_visual_tokens, settings.qwen_max_visual_tokens)
        model = _model(folder, _dtype(settings.qwen_precision, device))
        if adapter is not None:
            merged: Any = PeftModel.from_pretrained(model, str(adapter), is_trainable=False)
            model = merged.merge_and_unload()
        return Vlm(model.to(device), processor, version, longest_side)
    except TatorError:
        raise
    except Exception as error:  # a parser, a constructor or a tensor's shape, each in its way
        if is_out_of_memory(error):
            raise
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        with_adapter = f" with the adapter in {adapter}" if adapter else ""
        raise VlmError(
            f"The model in {folder}{with_adapter} is damaged or of another kind: {said.rstrip('.')}."
        ) from error


def find(settings: Settings, model_id: str) -> Path:
    """The folder of a model: itself, its name in the models' folder, or the hub's cache, fetched if need be.

    Raises:
        VlmError: it is nowhere, or incomplete; the message says where to put it.
    """
    given = Path(model_id).expanduser()
    by_hand = settings.weights_dir / model_id
    for folder in (given, by_hand):
        if folder.is_dir():
            return _complete(folder)
    if not _HUB_ID.fullmatch(model_id):
        raise VlmError(f"There is no folder {given.absolute()}; name a model's folder, or its id on the hub.")
    return _fetched(model_id, by_hand, settings.offline)


def weights_digest(folder: Path, adapter: Path | None = None) -> str:
    """Eight hexadecimal digits that stand for a model's weights.

    Seven gigabytes are not read twice for it: of large files the size, and samples spread evenly from begin to end.
    """
    digest = hashlib.sha256()
    for place in (folder, adapter) if adapter else (folder,):
        for path in sorted([*place.glob("*.safetensors"), *place.glob("*config.json")]):
            size = path.stat().st_size
            digest.update(f"{path.name} {size}".encode())
            with path.open("rb") as file:
                if size <= _WHOLE_BYTES:
                    digest.update(file.read())
                    continue
                for number in range(_SAMPLES):
                    file.seek(number * (size - _SAMPLE_BYTES) // (_SAMPLES - 1))
                    digest.update(file.read(_SAMPLE_BYTES))
    return digest.hexdigest()[:8]


def _dtype(precision: str, device: str) -> torch.dtype:
    if precision == "auto":
        return torch.float32 if torch.device(device).type == "cpu" else torch.bfloat16
    dtype: torch.dtype = getattr(torch, precision)
    return dtype


def _model(folder: Path, dtype: torch.dtype) -> Any:
    """The model with all its weights."""
    kind: Any = transformers.AutoModelForImageTextToText
    model, report = kind.from_pretrained(
        folder,
        dtype=dtype,
        local_files_only=True,
        trust_remote_code=False,
        use_safetensors=True,
        output_loading_info=True,
    )
    missing = sorted(report["missing_keys"]) + [str(key) for key in report["mismatched_keys"]]
    if missing:
        raise VlmError(f"The weights in {folder} do not fit their config.json: {missing[0]} is not among them.")
    return model


def _complete(folder: Path) -> Path:
    """The folder, with configuration and all shards.

    Raises:
        VlmError: something is missing.
    """
    missing = _missing(folder)
    if missing:
        raise VlmError(f"Put {missing} into {folder.absolute()}: the model there is not whole without.")
    return folder


def _missing(folder: Path) -> str | None:
    """The first file that a model in the published layout lacks."""
    if not (folder / CONFIG).is_file():
        return CONFIG
    if (folder / INDEX).is_file():
        try:
            shards = sorted(set(json.loads((folder / INDEX).read_text())["weight_map"].values()))
        except (ValueError, KeyError, TypeError, AttributeError):
            return INDEX
        return next((str(one) for one in shards if not (folder / str(one)).is_file()), None)
    return None if (folder / WEIGHTS).is_file() else WEIGHTS


def _fetched(repository: str, by_hand: Path, offline: bool) -> Path:
    """A repository's folder in the hub's cache; what is not in it is fetched."""
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(repository, allow_patterns=FILES, local_files_only=True))
        if _missing(folder) is None:
            return folder
    except Exception:
        log.info("%s is not in the hub's cache", repository)
    if offline:
        raise VlmError(f"Put the files of {repository} into {by_hand.absolute()}: downloads are switched off.")
    log.info("fetching %s from the hub", repository)
    try:
        folder = Path(snapshot_download(repository, allow_patterns=FILES))
    except Exception as error:  # the client passes on what its HTTP library raises, which has changed
        raise VlmError(
            f"{repository} could not be fetched from the hub; download it elsewhere and put its files into "
            f"{by_hand.absolute()}, or name another folder as QWEN_MODEL_NAME."
        ) from error
    return _complete(folder)
