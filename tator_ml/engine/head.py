"""The class head: embeddings become calibrated probabilities, and a verdict that may abstain.

A head is a folder of two files: ``head.safetensors`` (weight, bias) and ``head.json`` (label map
and everything else). It needs neither torch nor pickle, so any process can read and apply it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from tator_ml.engine.crops import CropRecipe
from tator_ml.engine.messages import Verdict
from tator_sdk.errors import TatorError
from tator_sdk.files import write_durably

WEIGHTS_FILE, METADATA_FILE = "head.safetensors", "head.json"
FORMAT = "tator-head-1"
TOP = 3  # classes that a verdict names


class HeadError(TatorError):
    """A head could not be used; the message is one sentence for a person."""


class HeadMissing(HeadError):
    """A head's folder lacks a file."""


class HeadDamaged(HeadError):
    """A head's files cannot be read, or do not fit each other."""


@dataclass(frozen=True, eq=False)
class Head:
    """A linear classifier on L2-normalised embeddings, with what it must be used with.

    Attributes:
        classes: C names as people read them; row i of ``weight`` is ``classes[i]``.
        weight: (C, D) float32.
        bias: (C,) float32.
        temperature: what logits are divided by before the softmax, above 0
            (https://arxiv.org/abs/1706.04599).
        threshold: least probability of an answer, 0 to 1.
        margin: least distance of the two best probabilities in an answer, 0 to 1.
        encoder: ``Encoder.version`` of the embeddings that it was fitted on.
        recipe: how the crops were cut that it was fitted on.
        version: names this head in predictions and registry.
        encoder_name: what ``encoders.load`` takes to load that encoder.
        background: which of ``classes`` stands for "none of these", or None; it is never an answer.
        centers: (C, D) float32 of L2 norm 1, the mean direction of each class, or None.
        familiarity: least cosine of an answered box with its class's centre, -1 to 1. A linear classifier is sure
            of much that it has never seen; the distance to what it has seen tells the two apart better.
        areas: median area of each class's boxes as a share of the picture, above 0 to 1, or None.

    Raises:
        HeadDamaged: shapes, names or ranges do not fit, or a weight is not finite.
    """

    classes: tuple[str, ...]
    weight: NDArray[np.float32]
    bias: NDArray[np.float32]
    temperature: float
    threshold: float
    margin: float
    encoder: str
    recipe: CropRecipe
    version: str
    encoder_name: str = "starter"
    background: str | None = None
    centers: NDArray[np.float32] | None = None
    familiarity: float = -1.0
    areas: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        count = len(self.classes)
        if not count or len(set(self.classes)) != count:
            raise HeadDamaged("A head needs at least one class, and each class once.")
        if self.weight.ndim != 2 or len(self.weight) != count or self.bias.shape != (count,):
            raise HeadDamaged(
                f"The head names {count} classes, but its weights are {self.weight.shape} "
                f"and its bias {self.bias.shape}."
            )
        if self.weight.dtype != np.float32 or self.bias.dtype != np.float32:
            raise HeadDamaged("A head's weights are float32.")
        if not (np.isfinite(self.weight).all() and np.isfinite(self.bias).all()):
            raise HeadDamaged("The head's weights contain numbers that are not finite.")
        # Written so that NaN fails too: it compares false with everything.
        if not 0 < self.temperature < float("inf"):
            raise HeadDamaged(f"A head's temperature is above 0, not {self.temperature}.")
        if not (0 <= self.threshold <= 1 and 0 <= self.margin <= 1):
            raise HeadDamaged(f"Threshold and margin lie in 0..1, not {self.threshold} and {self.margin}.")
        if self.centers is not None and (
            self.centers.shape != self.weight.shape or not np.isfinite(self.centers).all()
        ):
            raise HeadDamaged("The head's class centres do not fit its weights.")
        if not -1 <= self.familiarity <= 1:
            raise HeadDamaged(f"A head's familiarity lies in -1..1, not {self.familiarity}.")
        if self.areas is not None and (len(self.areas) != count or not all(0 < area <= 1 for area in self.areas)):
            raise HeadDamaged("The head's usual areas do not fit its classes.")
        if self.background is not None and self.background not in self.classes:
            raise HeadDamaged(f"The head's background '{self.background}' is none of its classes.")

    @property
    def digest(self) -> str:
        """Hexadecimal digits that stand for the weights."""
        return hashlib.sha256(self.weight.tobytes() + self.bias.tobytes()).hexdigest()

    def usual_area(self, label: str) -> float | None:
        """The median area of a class's boxes, as a share of the picture; None where it is not known."""
        if self.areas is None or label not in self.classes:
            return None
        return self.areas[self.classes.index(label)]

    def probabilities(self, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
        """Calibrated probabilities: (N, D) embeddings of L2 norm 1 → (N, C) float32, rows sum to 1.

        Raises:
            HeadError: the embeddings have another length than the head was fitted on.
        """
        if embeddings.ndim != 2 or embeddings.shape[1] != self.weight.shape[1]:
            raise HeadError(
                f"Head {self.version} takes embeddings of length {self.weight.shape[1]} "
                f"from {self.encoder}, not {embeddings.shape}."
            )
        logits = (embeddings.astype(np.float64) @ self.weight.T + self.bias) / self.temperature
        logits -= logits.max(1, keepdims=True)  # the softmax is the same, and nothing overflows
        shares = np.exp(logits)
        return np.asarray(shares / shares.sum(1, keepdims=True), np.float32)

    def closeness(self, embeddings: NDArray[np.float32], answers: NDArray[np.intp]) -> NDArray[np.float32]:
        """Cosine of each embedding (N, D) with the centre of the class (N,) that it is taken for; 1 without centres."""
        if self.centers is None:
            return np.ones(len(embeddings), np.float32)
        return np.asarray((embeddings * self.centers[answers]).sum(1), np.float32)

    def verdicts(self, embeddings: NDArray[np.float32]) -> list[Verdict]:
        """The verdict on each object, from its embedding (N, D) of L2 norm 1.

        Raises:
            HeadError: the embeddings have another length than the head was fitted on.
        """
        probabilities = self.probabilities(embeddings)
        close = self.closeness(embeddings, probabilities.argmax(1))
        return [self.decide(row, float(near)) for row, near in zip(probabilities, close, strict=True)]

    def decide(self, probabilities: NDArray[np.float32], closeness: float = 1.0) -> Verdict:
        """The verdict on one object, from its row (C,) of ``probabilities`` and its ``closeness``.

        Abstains where the best probability is below ``threshold`` or leads by less than ``margin``, where the object
        is not familiar enough, and where the best class is the background.

        Raises:
            HeadError: there is not one probability for each class.
        """
        if probabilities.shape != (len(self.classes),):
            raise HeadError(f"A verdict needs {len(self.classes)} probabilities, not {probabilities.shape}.")
        order = np.argsort(-probabilities, kind="stable")
        top = tuple((self.classes[row], float(probabilities[row])) for row in order[:TOP])
        best = top[0][1]
        lead = best - top[1][1] if len(top) > 1 else best
        sure = best >= self.threshold and lead >= self.margin and closeness >= self.familiarity
        answers = sure and top[0][0] != self.background
        return Verdict(top[0][0] if answers else None, best, top)

    def files(self, metrics: Mapping[str, Any] | None = None) -> dict[str, bytes]:
        """The head as the content of its two files by name; ``metrics`` (JSON values) goes along."""
        tensors = {"weight": self.weight, "bias": self.bias}
        if self.centers is not None:
            tensors["centers"] = self.centers
        weights = save_tensors({name: np.ascontiguousarray(value) for name, value in tensors.items()})
        metadata = {
            "format": FORMAT,
            "version": self.version,
            "encoder": self.encoder,
            "encoder_name": self.encoder_name,
            "label_map": list(self.classes),
            "background": self.background,
            "recipe": {"margin": self.recipe.margin, "square": self.recipe.square},
            "temperature": self.temperature,
            "threshold": self.threshold,
            "margin": self.margin,
            "familiarity": self.familiarity,
            "areas": list(self.areas) if self.areas is not None else None,
            "weights_sha256": hashlib.sha256(weights).hexdigest(),
            "metrics": dict(metrics or {}),
        }
        return {WEIGHTS_FILE: weights, METADATA_FILE: (json.dumps(metadata, indent=2) + "\n").encode()}

    def save(self, folder: Path, metrics: Mapping[str, Any] | None = None) -> None:
        """Write the head to ``folder``, made if need be; ``metrics`` (JSON values) goes along.

        Each file gets its name when complete, and the JSON, written last, holds the digest of the
        weights: a crash between the two leaves a head that ``load`` refuses, never a wrong one.
        """
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in self.files(metrics).items():
            write_durably(folder / name, content)

    @classmethod
    def load(cls, folder: Path) -> Head:
        """Read the head of a folder.

        Raises:
            HeadMissing: a file is not there.
            HeadDamaged: a file cannot be read, or the two do not fit each other.
        """
        files = {}
        for name in (METADATA_FILE, WEIGHTS_FILE):
            try:
                files[name] = (folder / name).read_bytes()
            except (FileNotFoundError, NotADirectoryError) as error:
                raise HeadMissing(f"The head's file {folder / name} is missing.") from error
        return cls.of_files(files, str(folder))

    @classmethod
    def of_files(cls, files: Mapping[str, bytes], where: str) -> Head:
        """The head that ``files`` made; ``where`` says in errors what could not be read.

        Raises:
            HeadDamaged: a file cannot be read, or the two do not fit each other.
        """
        try:
            metadata = json.loads(files[METADATA_FILE])
            if metadata["format"] != FORMAT:
                raise HeadDamaged(f"The head in {where} has the unknown format {metadata['format']!r}.")
            if metadata["weights_sha256"] != hashlib.sha256(files[WEIGHTS_FILE]).hexdigest():
                raise HeadDamaged(f"The head in {where} has weights that are not those it was saved with.")
            if not isinstance(metadata["label_map"], list):  # a string would pass for its letters
                raise HeadDamaged(f"The head in {where} has a label map that is not a list.")
            tensors = load_tensors(files[WEIGHTS_FILE])
            return cls(
                classes=tuple(str(name) for name in metadata["label_map"]),
                weight=tensors["weight"],
                bias=tensors["bias"],
                temperature=float(metadata["temperature"]),
                threshold=float(metadata["threshold"]),
                margin=float(metadata["margin"]),
                encoder=str(metadata["encoder"]),
                recipe=CropRecipe(float(metadata["recipe"]["margin"]), bool(metadata["recipe"]["square"])),
                version=str(metadata["version"]),
                encoder_name=str(metadata.get("encoder_name", "starter")),
                background=metadata.get("background"),
                centers=tensors.get("centers"),
                familiarity=float(metadata.get("familiarity", -1.0)),
                areas=tuple(float(area) for area in metadata["areas"]) if metadata.get("areas") else None,
            )
        except (KeyError, TypeError, ValueError, RecursionError, SafetensorError) as error:
            raise HeadDamaged(f"The head in {where} cannot be read.") from error
