"""Encoders from ``transformers``: any image model of it, from a folder or by its name on the hub.

Pixels are prepared by the model's own image processor, told neither to scale nor to cut: crops
come in the model's size already, with the margin that the head's recipe gave them.

What a model says about a picture becomes one vector like this, the first that applies:

1. Models with a picture and a text tower (CLIP, SigLIP) give their image embedding: what
   ``get_image_features`` gives, projection included; ``…VisionModelWithProjection`` likewise.
2. ``pooler_output``, where the weights have a trained pooler or it has no weights.
3. Tokens (N, T, D): the class token where the model has one, else their mean.
4. A map (N, D, H, W): its mean over H and W.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor
from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING

from tator_ml.engine.encoders.base import EncoderError
from tator_ml.engine.encoders.torch_encoder import TorchEncoder, first_line, square_side, weights_digest
from tator_ml.engine.memory import is_out_of_memory

log = logging.getLogger(__name__)
_PROCESSORS: Any = transformers.AutoImageProcessor  # has no types
_DESCRIPTIONS = ("config.json", "preprocessor_config.json", "processor_config.json")
_PROCESSOR_FILES = _DESCRIPTIONS[1:]
# In the order of preference; the second kind is read by torch.load with weights_only.
_WEIGHTS = (("model.safetensors", "model-*.safetensors"), ("pytorch_model.bin", "pytorch_model-*.bin"))
_CLASS_TOKENS = {"cls_token", "class_token", "class_embedding"}


class TransformersEncoder(TorchEncoder):
    """An image model of ``transformers``, as an ``Encoder``.

    Attributes:
        model: in evaluation mode, in float32; towers that are not for pictures included.
        processor: the model's image processor.
        version: ``transformers-<model type>-<digest of the weights and the processor's numbers>``,
            the same for the same weights, whether they came from the hub or from a folder.
        size: side of the crops in pixels.
        dim: length of the embeddings.
    """

    model: Any

    def __init__(self, model: Any, processor: Any, size: int, device: str = "cpu") -> None:
        self.processor = processor
        self._has_class_token = any(name.split(".")[-1] in _CLASS_TOKENS for name, _ in model.named_parameters())
        version = f"transformers-{model.config.model_type}-{weights_digest(model, _numbers(processor, size))}"
        super().__init__(model, version, size, None, device)

    def prepared(self, pixels: Tensor) -> Tensor:
        """Pixels (N, 3, size, size), 0..255 → float32 as the processor makes them, on the model's device.

        Raises:
            EncoderError: the processor makes something else of pictures.
        """
        answer = self.processor(
            images=list(pixels.cpu()),
            input_data_format="channels_first",
            do_resize=False,
            do_center_crop=False,
            return_tensors="pt",
        )
        found: Tensor = answer["pixel_values"]
        if found.shape != pixels.shape:
            raise EncoderError(
                f"The processor of {self.version} makes {tuple(found.shape)} of crops {tuple(pixels.shape)}; "
                "choose a model that takes whole pictures."
            )
        return found.to(self.device, torch.float32)

    def features(self, pixels: Tensor) -> Tensor:
        """Prepared pixels (N, 3, size, size) → (N, dim); the module's docstring has the rule."""
        if hasattr(self.model, "get_image_features"):
            answer = self.model.get_image_features(pixel_values=pixels)
        else:
            answer = self.model(pixel_values=pixels)
        if isinstance(answer, Tensor):
            return self._one_vector(answer)
        for name in ("image_embeds", "pooler_output", "last_hidden_state"):
            value = getattr(answer, name, None)
            if isinstance(value, Tensor):
                return self._one_vector(value)
        raise EncoderError(f"{self.version} says nothing about a picture as a whole; choose another encoder.")

    def _one_vector(self, value: Tensor) -> Tensor:
        """(N, D), (N, T, D) or (N, D, H, W) → (N, D)."""
        if value.ndim == 3:
            return value[:, 0] if self._has_class_token else value.mean(1)
        return value.flatten(2).mean(2) if value.ndim == 4 else value


def load(name: str, device: str = "cpu") -> TransformersEncoder:
    """Load an image model.

    Args:
        name: a folder with ``config.json`` and weights as ``save_pretrained`` writes them, or a
            repository on the hub, of which what was fetched once is not asked for again.
        device: where torch runs it.

    Raises:
        EncoderError: files are missing or damaged, cannot be fetched, or hold no image model.
    """
    folder = Path(name).expanduser()
    return load_folder(folder if folder.is_dir() else _fetched(name), device)


def load_folder(folder: Path, device: str = "cpu") -> TransformersEncoder:
    """Load the model of a folder. Code that lies in it is not run.

    A folder without a processor's configuration gets its model type's usual one, and pictures of
    the ``image_size`` in ``config.json``.

    Raises:
        EncoderError: files are missing or damaged, or hold no image model.
    """
    if not (folder / "config.json").is_file():
        raise EncoderError(f"Put config.json into {folder.absolute()}, or name another encoder: it is not there.")
    if not _has_weights(folder):
        raise EncoderError(f"Put model.safetensors into {folder.absolute()}: the model's weights are not there.")
    try:
        config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        processor, size = _processor(folder, config)
        return TransformersEncoder(_model(folder, config), processor, size, device)
    except EncoderError:
        raise
    except Exception as error:  # a parser, a constructor or the model's own arithmetic, each in its way
        if is_out_of_memory(error):  # there may be room once others give up theirs
            raise
        raise EncoderError(
            f"The encoder in {folder} is damaged or no image model of transformers: {first_line(error)}"
        ) from error


def _processor(folder: Path, config: Any) -> tuple[Any, int]:
    """The image processor, and the side of the pictures it prepares."""
    of_model = getattr(config, "image_size", None) or getattr(
        getattr(config, "vision_config", None), "image_size", None
    )
    if any((folder / name).is_file() for name in _PROCESSOR_FILES):
        processor = _PROCESSORS.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        side = _side(processor) or of_model
    else:
        usual: Any = IMAGE_PROCESSOR_MAPPING.get(type(config), {})
        kind = usual.get("torchvision") or usual.get("pil")
        if kind is None:
            raise EncoderError(f"Put preprocessor_config.json into {folder.absolute()}: it is not there.")
        processor = kind()
        side = of_model or _side(processor)
        log.warning("%s has no preprocessor_config.json: using %s as it comes", folder, kind.__name__)
    if side is None:
        raise EncoderError(f"Nothing in {folder.absolute()} says how large the encoder's pictures are.")
    return processor, square_side(side)


def _side(processor: Any) -> int | tuple[int, int] | None:
    """What a processor cuts pictures to, else what it scales them to; None where it does neither."""
    for flag, name in (("do_center_crop", "crop_size"), ("do_resize", "size")):
        size = getattr(processor, name, None)
        if not getattr(processor, flag, False) or size is None:
            continue
        if size.get("height") is not None:
            return size.get("height"), size.get("width")
        if size.get("shortest_edge") is not None:
            return int(size.get("shortest_edge"))
    return None


def _model(folder: Path, config: Any) -> Any:
    """The model with all its weights, in float32.

    Checkpoints of classifiers lack the pooler that ``AutoModel`` adds with random weights; it is
    taken away again. Any other weight that is missing is an error.
    """
    kind: Any = transformers.AutoModel
    architecture = (getattr(config, "architectures", None) or [""])[0]
    if architecture.endswith("VisionModelWithProjection"):
        kind = getattr(transformers, architecture)
    model, report = kind.from_pretrained(
        folder,
        config=config,
        dtype=torch.float32,
        local_files_only=True,
        trust_remote_code=False,
        output_loading_info=True,
    )
    missing = sorted(report["missing_keys"]) + [str(key) for key in report["mismatched_keys"]]
    if missing and all(key.startswith("pooler.") for key in missing):
        model.pooler = None
    elif missing:
        raise EncoderError(f"The weights in {folder} do not fit their config.json: {missing[0]} is not among them.")
    return model


def _numbers(processor: Any, size: int) -> str:
    """What, beside the weights, decides the embeddings; written alike by all versions of transformers."""
    parts = [f"size {size}"]
    for flag, names in (("do_rescale", ["rescale_factor"]), ("do_normalize", ["image_mean", "image_std"])):
        for name in names if getattr(processor, flag, False) else []:
            value = getattr(processor, name)
            numbers = [value] if isinstance(value, int | float) else value
            parts.append(f"{name} {[f'{number:.6g}' for number in numbers]}")
    return ", ".join(parts)


def _has_weights(folder: Path) -> bool:
    """Whether all shards of a model are there, in one of the formats."""
    for whole, _ in _WEIGHTS:
        if (folder / whole).is_file():
            return True
        index = folder / f"{whole}.index.json"
        if index.is_file():
            try:
                shards = set(json.loads(index.read_text("utf-8"))["weight_map"].values())
            except (ValueError, KeyError, AttributeError, TypeError):
                return False
            return all((folder / str(shard)).is_file() for shard in shards)
    return False


def _fetched(repository: str) -> Path:
    """The folder of a repository's files in the hub's cache; fetches what is not in it."""
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(repository, allow_patterns=list(_DESCRIPTIONS), local_files_only=True))
        if _has_weights(folder):
            return folder
    except Exception:
        log.info("%s is not in the hub's cache", repository)
    try:
        # The descriptions first: where there are weights, nothing is missing.
        folder = Path(snapshot_download(repository, allow_patterns=list(_DESCRIPTIONS)))
        for patterns in _WEIGHTS:
            wanted = [*patterns, f"{patterns[0]}.index.json"]
            folder = Path(snapshot_download(repository, revision=folder.name, allow_patterns=wanted))
            if _has_weights(folder):
                break
    except Exception as error:  # the client passes on what its HTTP library raises, which has changed
        raise EncoderError(
            f"'{repository}' is no folder, and could not be fetched from the hub; download it elsewhere and "
            f"name the folder: transformers:<folder>."
        ) from error
    return folder
