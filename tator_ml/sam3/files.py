"""Which files a SAM 3 is made of: the settings', or those of a tuned one by its id. Free of torch."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from tator_ml.hub_folder import Shelf, files_digest, lacks_of_model
from tator_sdk.errors import TatorError
from tator_sdk.settings import Settings

NAME = "sam3"
"""Of the segmenter, and what names of tuned ones begin with."""
PROCESSORS = ("processor_config.json", "preprocessor_config.json")
TOKENIZER = "tokenizer.json"

_TUNED = re.compile(rf"{NAME}-\w[\w.-]{{0,99}}", re.ASCII)


class Sam3Error(TatorError):
    """A SAM 3 that cannot be had, or asked; the message is one sentence that says what to do."""


@dataclass(frozen=True)
class Sam3Files:
    """What a model is loaded from.

    Attributes:
        folder: configuration and weights, in the published layout or that of ``Sam3Model`` alone.
        processor: folder of what prepares pictures and phrases.
        checkpoint: file whose weights replace those of the folder; None for its own.
    """

    folder: Path
    processor: Path
    checkpoint: Path | None = None

    def digest(self) -> str:
        """Eight hexadecimal digits that stand for all of it."""
        folders = (self.folder,) if self.folder == self.processor else (self.folder, self.processor)
        found = [path for one in folders for path in sorted([*one.glob("*.safetensors"), *one.glob("*config.json")])]
        tokenizer = self.processor / TOKENIZER
        also = [tokenizer] if tokenizer.is_file() else []
        return files_digest([*found, *also, *([self.checkpoint] if self.checkpoint else [])])


def is_sam3(name: str) -> bool:
    """Whether a segmenter's name is that of SAM 3, or of a tuned one."""
    return name == NAME or _TUNED.fullmatch(name) is not None


def find_files(settings: Settings, name: str = NAME) -> Sam3Files:
    """The files of a SAM 3 by its segmenter's name, fetched from the hub if need be.

    Args:
        settings: the model's id, its processor and checkpoint; where models lie.
        name: ``sam3``, or a tuned one's id.

    Raises:
        Sam3Error: something is missing, or the hub refuses it; the message says what to do.
    """
    if name != NAME:
        return _tuned(settings, name)
    checkpoint = Path(settings.sam3_checkpoint).expanduser() if settings.sam3_checkpoint else None
    if checkpoint is not None and not checkpoint.is_file():
        raise Sam3Error(
            f"Put {checkpoint.name} into {checkpoint.parent.absolute()}, or name another file as SAM3_CHECKPOINT_PATH: "
            "it is not there."
        )
    shelf = _shelf(settings, "SAM3_MODEL_ID")
    if not settings.sam3_processor_id:
        folder = shelf.find(settings.sam3_model_id, _lacks_anything)
        return Sam3Files(folder, folder, checkpoint)
    processor = _shelf(settings, "SAM3_PROCESSOR_ID").find(settings.sam3_processor_id, _lacks_of_processor)
    return Sam3Files(shelf.find(settings.sam3_model_id), processor, checkpoint)


def folder_files(folder: Path) -> Sam3Files:
    """A folder that holds model and processor.

    Raises:
        Sam3Error: something is missing.
    """
    missing = _lacks_anything(folder)
    if missing:
        raise Sam3Error(f"Put {missing} into {folder.absolute()}: the model there is not whole without.")
    return Sam3Files(folder, folder)


def _shelf(settings: Settings, setting: str) -> Shelf:
    return Shelf(settings.weights_dir, settings.offline, setting, Sam3Error)


def _tuned(settings: Settings, name: str) -> Sam3Files:
    folder = settings.home / NAME / name / "model"
    if not _TUNED.fullmatch(name) or not folder.is_dir():
        raise Sam3Error(
            f"There is no SAM 3 '{name[:100]}' under {settings.home / NAME}; where the engine runs on another "
            "host than the training did, copy the model's folder there."
        )
    return folder_files(folder)


def _lacks_anything(folder: Path) -> str | None:
    return lacks_of_model(folder) or _lacks_of_processor(folder)


def _lacks_of_processor(folder: Path) -> str | None:
    """The first file of a processor that a folder lacks."""
    if not any((folder / one).is_file() for one in PROCESSORS):
        return PROCESSORS[0]
    return None if (folder / TOKENIZER).is_file() else TOKENIZER
