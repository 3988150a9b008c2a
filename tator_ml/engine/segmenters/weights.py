"""Where weights come from: a file by its path, in the models folder, in the package or on the hub."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from tator_ml.engine.segmenters import published
from tator_ml.hub_folder import Shelf
from tator_sdk.errors import TatorError

# Every part begins with a letter or digit, so that no part can be "..".
_HUB_FILE = re.compile(r"(\w[\w.-]*/\w[\w.-]*):(\w[\w.-]*(?:/\w[\w.-]*)*)")
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")
_KEYS_NAMED = 3


class WeightsMissing(TatorError):
    """No weights to be found; the message is one sentence: which file, and the folder to put it in."""


class WeightsUnreadable(TatorError):
    """The file is damaged or holds something else; the message is one sentence for a person."""


def resolve(name: str, checkpoint: str | None, models_dir: Path, offline: bool) -> Path:
    """Find a segmenter's weights, downloading them where that is needed and allowed.

    Args:
        name: of the segmenter, as in ``segmenters.SEGMENTERS``. One whose published weights are a whole repository
            is a folder, see :class:`Shelf`.
        checkpoint: a path; or ``hub/repository:file``, kept in ``models_dir/hub/repository``; or
            None for the published weights, kept in ``models_dir`` under their published name.
        models_dir: folder of downloaded weights; a file put there by hand serves as well.
        offline: never try the hub.

    Raises:
        WeightsMissing: with the file's name and folder.
        UnknownSegmenter: see :func:`segmenters.published`.
    """
    return find(published(name).weights, checkpoint, models_dir, offline)


def find(own: str | None, checkpoint: str | None, models_dir: Path, offline: bool) -> Path:
    """The same for a segmenter whose published weights are ``own``, None where there are none.

    Raises:
        WeightsMissing: with the file's name and folder.
    """
    source = checkpoint or own or ""
    if own and _REPOSITORY.fullmatch(own):
        return Shelf(models_dir, offline, "another checkpoint", WeightsMissing).find(source)
    hub_file = _HUB_FILE.fullmatch(source)
    if hub_file is None:
        return _shipped(source) if checkpoint is None else _given(Path(source).expanduser())
    repository, file = hub_file.groups()
    folder = models_dir if checkpoint is None else models_dir / repository
    # The hub's client keeps a repository's inner folders; a person does not.
    for path in (folder / Path(file).name, folder / file):
        if path.is_file():
            return path
    if offline:
        raise WeightsMissing(
            f"Put {path.name} into {folder.absolute()}: it is not there, and downloads are switched off."
        )
    return _download(repository, file, folder)


def _shipped(file: str) -> Path:
    path = Path(str(resources.files("tator_ml") / "weights" / file))
    if not path.is_file():
        raise WeightsMissing(f"Put {file} into {path.parent}: this installation came without it.")
    return path


def _given(path: Path) -> Path:
    if not path.is_file():
        raise WeightsMissing(
            f"Put {path.name} into {path.parent.absolute()}, or name another checkpoint: it is not there."
        )
    return path


def _download(repository: str, file: str, folder: Path) -> Path:
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url

    try:
        # Asks once: hf_hub_download alone tries for half a minute before it gives up.
        get_hf_file_metadata(hf_hub_url(repository, file))
        return Path(hf_hub_download(repository, file, local_dir=folder))
    except Exception as error:  # the client passes on what its HTTP library raises, which has changed
        raise WeightsMissing(
            f"Put {Path(file).name} into {folder.absolute()}: it is not there, and could not be "
            f"downloaded from {repository} on the Hugging Face hub."
        ) from error


def read(path: Path) -> dict[str, Tensor]:
    """Read a state dict onto the CPU, its types as in the file. Nothing in the file is executed.

    Args:
        path: ``.safetensors``, or else a file of ``torch.save``: of tensors by name, alone or
            under ``"model"`` as SAM 2 publishes them.

    Raises:
        WeightsUnreadable: the file is damaged or holds something else.
    """
    content: object
    try:
        if path.suffix == ".safetensors":
            content = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # arbitrary bytes make the parsers raise nearly anything
        raise WeightsUnreadable(
            f"{path} cannot be read as weights: fetch it again, or name another checkpoint."
        ) from error
    if isinstance(content, dict) and isinstance(content.get("model"), dict):
        content = content["model"]
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise WeightsUnreadable(f"{path} holds no weights: name a checkpoint that does.")
    return content


def fill(model: nn.Module, state: Mapping[str, Tensor], path: Path, name: str) -> None:
    """Give a model its weights and set it to answer: evaluation mode, no gradients.

    Args:
        model: its own types are kept, whatever those of the file.
        state: exactly the model's keys and shapes.
        path: the file, for the message.
        name: the segmenter, for the message.

    Raises:
        WeightsUnreadable: the keys or shapes are not the model's; names the first of them.
    """
    expected = model.state_dict()
    complaints = {
        "it lacks": [key for key in expected if key not in state],
        "it also has": [key for key in state if key not in expected],
        "of another shape are": [
            key for key, value in expected.items() if key in state and state[key].shape != value.shape
        ],
    }
    found = [f"{complaint} {_first(keys)}" for complaint, keys in complaints.items() if keys]
    if found:
        raise WeightsUnreadable(f"{path} does not hold weights of {name}: {', '.join(found)}.")
    model.load_state_dict(state)
    model.eval().requires_grad_(False)


def _first(keys: Sequence[str]) -> str:
    named = ", ".join(keys[:_KEYS_NAMED])
    return named if len(keys) <= _KEYS_NAMED else f"{named} and {len(keys) - _KEYS_NAMED} more"


def fingerprint(path: Path) -> str:
    """First eight hexadecimal digits of the SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:8]
