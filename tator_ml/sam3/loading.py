"""Files → a SAM 3: the detector, which finds concepts, and the tracker, which answers clicks, over one vision tower."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import safe_open
from torch import Tensor, nn
from transformers import AutoConfig, Sam3Model, Sam3Processor, Sam3TrackerConfig, Sam3TrackerModel
from transformers.initialization import no_init_weights

from tator_ml.engine.memory import is_out_of_memory
from tator_ml.engine.segmenters import weights
from tator_ml.sam3.files import Sam3Error, Sam3Files
from tator_sdk.errors import TatorError

DETECTOR, TRACKER, NECK = "detector_model.", "tracker_model.", "tracker_neck."
"""What keys of the published layout begin with."""
BACKBONE = "vision_encoder.backbone."
_ORIGINAL = ("detector.backbone.", "backbone.vision_backbone.")


@dataclass(frozen=True)
class Sam3:
    """A model, ready to answer: evaluation mode, no gradients, float32.

    Attributes:
        detector: ``Sam3Model``.
        tracker: ``Sam3TrackerModel`` over the detector's own backbone; None where its weights are not there.
        processor: ``Sam3Processor``.
    """

    detector: Any
    tracker: Any | None
    processor: Any


def load_sam3(files: Sam3Files, device: torch.device | str) -> Sam3:
    """Load a model. Code that lies beside its weights is not run.

    Raises:
        Sam3Error: the files are damaged, or of another kind.
        WeightsUnreadable: the checkpoint is.
    """
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # it would fill the log
    try:
        return _loaded(files, device)
    except TatorError:
        raise
    except Exception as error:  # a parser, a constructor or a tensor's shape, each in its way
        if is_out_of_memory(error):
            raise
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise Sam3Error(
            f"The model in {files.folder} is damaged or of another kind: {said.rstrip('.')}; fetch it again, or name "
            "another as SAM3_MODEL_ID."
        ) from error


def _loaded(files: Sam3Files, device: torch.device | str) -> Sam3:
    config: Any = AutoConfig.from_pretrained(files.folder, local_files_only=True, trust_remote_code=False)
    if config.model_type == "sam3_video":
        detector_config, tracker_config = config.detector_config, config.tracker_config
    elif config.model_type == "sam3":
        detector_config, tracker_config = config, None
    else:
        raise Sam3Error(
            f"The model in {files.folder} is a {config.model_type}, not a SAM 3; name another as SAM3_MODEL_ID."
        )
    make_processor: Any = Sam3Processor
    processor = make_processor.from_pretrained(files.processor, local_files_only=True)
    side, fits = processor.target_size, detector_config.vision_config.backbone_config.image_size
    if side != fits:
        raise Sam3Error(
            f"The processor in {files.processor} makes pictures of {side} px, the model in {files.folder} takes {fits}: "
            "name one that fits as SAM3_PROCESSOR_ID."
        )
    detector = _detector(files.folder, detector_config)
    tracker = None if tracker_config is None else _tracker(files.folder, tracker_config, detector)
    if files.checkpoint is not None:
        _replace(detector, tracker, files.checkpoint)
    for model in (detector, tracker):
        if model is not None:
            model.eval().requires_grad_(False).to(device)
    return Sam3(detector, tracker, processor)


def _detector(folder: Path, config: Any) -> Any:
    """The detector with all its weights."""
    kind: Any = Sam3Model
    model, report = kind.from_pretrained(
        folder,
        config=config,
        dtype=torch.float32,
        local_files_only=True,
        use_safetensors=True,
        output_loading_info=True,
    )
    missing = sorted(report["missing_keys"]) + [str(key) for key in report["mismatched_keys"]]
    if missing:
        raise Sam3Error(f"The weights in {folder} do not fit their config.json: {missing[0]} is not among them.")
    return model


def _tracker(folder: Path, config: Any, detector: Any) -> Any:
    """The part of the tracker that answers clicks, looking through the detector's backbone.

    ``Sam3TrackerModel.from_pretrained`` finds neither its keys nor its configuration in this layout (transformers
    5.23), and would load a second vision tower.
    """
    vision = copy.deepcopy(detector.config.vision_config)
    vision.backbone_config.num_hidden_layers = 0  # replaced below: only what is around it is made
    make_config: Any = Sam3TrackerConfig
    make: Any = Sam3TrackerModel
    parts = {
        name: {key: value for key, value in getattr(config, name).to_dict().items() if key != "model_type"}
        for name in ("prompt_encoder_config", "mask_decoder_config")
    }
    # the square is the backbone's, whatever the tracker's configuration says of it
    parts["prompt_encoder_config"] |= {
        key: getattr(vision.backbone_config, key) for key in ("image_size", "patch_size")
    }
    with no_init_weights():
        tracker = make(make_config(vision_config=vision, **parts))
    tracker.vision_encoder.backbone = detector.vision_encoder.backbone
    state: dict[str, Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            state.update({key: file.get_tensor(key) for key in file.keys() if key.startswith((TRACKER, NECK))})  # noqa: SIM118
    fill_tracker(tracker, state, folder)
    return tracker


def fill_tracker(tracker: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    """Give the tracker its weights, but for those of the backbone.

    Args:
        tracker: see :class:`Sam3`.
        state: with keys of the published layout; what clicks do not need, such as the memory of videos, is left out.
        path: where they come from, for the message.

    Raises:
        WeightsUnreadable: something is missing, or of another shape.
    """
    expected = {key for key in tracker.state_dict() if not key.startswith(BACKBONE)}
    renamed = {tracker_key(key): value for key, value in state.items()}
    # the backbone is there already: filled with its own, so that everything else is required
    own = {key: value for key, value in tracker.state_dict().items() if key.startswith(BACKBONE)}
    weights.fill(tracker, {**{key: renamed[key] for key in expected & renamed.keys()}, **own}, path, "SAM 3")


def tracker_key(key: str) -> str:
    """A key of the published layout → of ``Sam3TrackerModel``; ``save_pretrained`` repeats the tracker's prefix."""
    while key.startswith(TRACKER):
        key = key.removeprefix(TRACKER)
    return f"vision_encoder.neck.{key.removeprefix(NECK)}" if key.startswith(NECK) else key


def _replace(detector: nn.Module, tracker: nn.Module | None, path: Path) -> None:
    """Put a checkpoint's weights in place of those that were loaded.

    Raises:
        WeightsUnreadable: they are not those of this model.
    """
    state = weights.read(path)
    if any(key.startswith(_ORIGINAL) for key in state):
        raise weights.WeightsUnreadable(
            f"{path} is in the layout of SAM 3's own code: name a file with the keys of transformers' Sam3Model as "
            "SAM3_CHECKPOINT_PATH."
        )
    of_tracker = {key: value for key, value in state.items() if key.startswith((TRACKER, NECK))}
    of_detector = {key.removeprefix(DETECTOR): value for key, value in state.items() if key not in of_tracker}
    weights.fill(detector, of_detector, path, "SAM 3")
    if of_tracker and tracker is not None:
        fill_tracker(tracker, of_tracker, path)
