"""Models that are folders: by path, by name in the models' folder, or by id on the hub, whose cache keeps them."""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tator_sdk.errors import TatorError

log = logging.getLogger(__name__)

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
FILES = ["*.json", "*.safetensors", "*.jinja", "*.txt"]
"""Of a repository: configuration, weights, tokenizer and chat template."""

_HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")
_REFUSALS = frozenset({401, 403})
_WHOLE_BYTES, _SAMPLE_BYTES, _SAMPLES = 2**26, 2**16, 64

Lacks = Callable[[Path], str | None]
"""A folder → the first file that it lacks; None where it is whole."""


@dataclass(frozen=True)
class Shelf:
    """Where models are looked for, and how it is said that one is not there.

    Attributes:
        folder: models by name, put there by hand.
        offline: never ask the hub.
        setting: that names the model, for messages.
        error: of messages.
        files: patterns of what is fetched.
    """

    folder: Path
    offline: bool
    setting: str
    error: type[TatorError]
    files: tuple[str, ...] = tuple(FILES)

    def find(self, model_id: str, lacks: Lacks | None = None) -> Path:
        """The folder of a model: itself, its name on the shelf, or the hub's cache, fetched if need be.

        Args:
            model_id: a folder, or a repository on the hub.
            lacks: what else than configuration and weights makes it whole.

        Raises:
            TatorError: of the kind ``error``: it is nowhere, incomplete or refused; the message says what to do.
        """
        lacks = lacks or lacks_of_model
        by_hand = self.folder / model_id
        for folder in (Path(model_id).expanduser(), by_hand):
            if folder.is_dir():
                return self._whole(folder, lacks)
        if not _HUB_ID.fullmatch(model_id):
            raise self.error(
                f"There is no folder {Path(model_id).expanduser().absolute()}; name a model's folder, or its id on "
                "the hub."
            )
        return self._fetched(model_id, by_hand, lacks)

    def _whole(self, folder: Path, lacks: Lacks) -> Path:
        missing = lacks(folder)
        if missing:
            raise self.error(f"Put {missing} into {folder.absolute()}: the model there is not whole without.")
        return folder

    def _fetched(self, repository: str, by_hand: Path, lacks: Lacks) -> Path:
        """A repository's folder in the hub's cache; what is not in it is fetched."""
        from huggingface_hub import snapshot_download

        files = list(self.files)
        try:
            folder = Path(snapshot_download(repository, allow_patterns=files, local_files_only=True))
            if lacks(folder) is None:
                return folder
        except Exception:
            log.info("%s is not in the hub's cache", repository)
        if self.offline:
            raise self.error(f"Put the files of {repository} into {by_hand.absolute()}: downloads are switched off.")
        log.info("fetching %s from the hub", repository)
        try:
            folder = Path(snapshot_download(repository, allow_patterns=files))
        except Exception as error:  # the client passes on what its HTTP library raises, which has changed
            if why := _refusal(error):
                raise self.error(
                    f"{repository} is {why}: accept its licence on its page on the Hugging Face hub, then run "
                    f"`hf auth login` or set HF_TOKEN; or put its files into {by_hand.absolute()}."
                ) from error
            raise self.error(
                f"{repository} could not be fetched from the hub; download it elsewhere and put its files into "
                f"{by_hand.absolute()}, or name another folder as {self.setting}."
            ) from error
        return self._whole(folder, lacks)


def lacks_of_model(folder: Path) -> str | None:
    """The first file that a model in the published layout lacks: its configuration, or weights with all shards."""
    if not (folder / CONFIG).is_file():
        return CONFIG
    if (folder / INDEX).is_file():
        try:
            shards = sorted(set(json.loads((folder / INDEX).read_text())["weight_map"].values()))
        except (ValueError, KeyError, TypeError, AttributeError):
            return INDEX
        return next((str(one) for one in shards if not (folder / str(one)).is_file()), None)
    return None if (folder / WEIGHTS).is_file() else WEIGHTS


def weights_digest(*folders: Path) -> str:
    """Eight hexadecimal digits that stand for the weights and configurations in folders."""
    return files_digest(
        path for place in folders for path in sorted([*place.glob("*.safetensors"), *place.glob("*config.json")])
    )


def files_digest(paths: Iterable[Path]) -> str:
    """Eight hexadecimal digits that stand for files by name and content.

    Gigabytes are not read twice for it: of large files the size, and samples spread evenly from begin to end.
    """
    digest = hashlib.sha256()
    for path in paths:
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


def _refusal(error: BaseException) -> str | None:
    """What a repository is that the hub does not give out, as it raises, or in what caused that; None for others.

    Of a repository that is not there, and of a private one, the hub says 401 as well, lest anybody learns which it is.
    """
    from huggingface_hub.errors import GatedRepoError

    causes = list(_causes(error))
    if any(isinstance(one, GatedRepoError) for one in causes):
        return "gated"
    statuses = {getattr(getattr(one, "response", None), "status_code", 0) for one in causes}
    return "gated, private or misspelt" if statuses & _REFUSALS else None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
