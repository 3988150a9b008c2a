"""Runs of trainings beside a base model, and which one is active in each project: what Qwens and SAM 3s share.

A run is a folder: what it is and what made it (``metadata.json``), how good it is (``metrics.json``), the pictures it
has seen (``examples.json``), and its weights as safetensors. Which one is active is a project's choice (projects.py),
read at each request. Nothing here imports torch.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import re
import zipfile
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, ClassVar, Generic, Self, TypeVar

from safetensors import SafetensorError, safe_open

from tator_ml.projects import Projects, Role
from tator_ml.versions import next_version, remove_version
from tator_sdk.errors import TatorError
from tator_sdk.files import write_durably
from tator_sdk.unfinished import unfinished

METADATA_FILE, METRICS_FILE, EXAMPLES_FILE = "metadata.json", "metrics.json", "examples.json"
BASE = "base"
"""What the model without any tuning is called."""


class RunError(TatorError):
    """A run cannot be found, taken in or given out; the message is for a person."""


@dataclass(frozen=True, kw_only=True)
class Metadata:
    """What ``metadata.json`` holds of every kind of run.

    Attributes:
        id: of the run, and of its folder.
        label: a name for people.
        classes: it was trained to find.
        model_id: the base, by hub id or path.
        created_at: ISO 8601, UTC.
        latest_checkpoint: of the weights, relative to the folder.
        source_dataset: where its examples came from.
        method: how it was trained, such as ``lora`` or ``whole``.
        description: a sentence for lists.
        project: of Label Studio that it was trained for; None for one from a data set.
        trained_by: the request, JSON values.
    """

    id: str
    label: str
    classes: tuple[str, ...]
    model_id: str
    created_at: str
    latest_checkpoint: str
    source_dataset: str
    method: str
    description: str = ""
    project: int | None = None
    trained_by: Mapping[str, Any] | None = None

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Read it; names of a later version are passed over.

        Raises:
            TypeError, ValueError, AttributeError: it is something else.
        """
        known = {one.name for one in fields(cls)}
        found = cls(**{name: value for name, value in values.items() if name in known})
        return replace(found, classes=tuple(found.classes))


M = TypeVar("M", bound=Metadata)


@dataclass(frozen=True, kw_only=True)
class Entry(Generic[M]):
    """A model that a project can have: the base or a run.

    Attributes:
        id: of the run; ``base`` for the installation's own; the model itself where it was named by hub id or path.
        model_id: what is loaded, by hub id or path.
        classes: it was trained on; empty for a base.
        metrics: of its training; None for a base.
        description: a sentence for people.
        label: a name for people.
        project: of Label Studio that it was trained for.
        folder: of the run; None for a base.
        metadata: of the run; None for a base.
    """

    id: str
    model_id: str
    classes: tuple[str, ...] = ()
    metrics: Mapping[str, Any] | None = None
    description: str = ""
    label: str = ""
    project: int | None = None
    folder: Path | None = None
    metadata: M | None = None

    @property
    def weights(self) -> Path:
        """Where a run's safetensors lie."""
        return Path(self.model_id)

    def examples(self) -> list[dict[str, Any]]:
        """The pictures of its training: content hash, and whether it was held out."""
        path = self.folder / EXAMPLES_FILE if self.folder else None
        return list(json.loads(path.read_text())) if path is not None and path.exists() else []


E = TypeVar("E", bound="Entry[Any]")


class RunRegistry(ABC, Generic[M, E]):
    """The base model, the folder of runs, and the activations of projects."""

    role: ClassVar[Role]
    """Begins the runs' ids, is what a project has an active one of, and the word in ``tator models``."""
    title: ClassVar[str]
    """Of this kind of model, for people."""
    error: ClassVar[type[RunError]]
    metadata_type: type[M]
    figures: ClassVar[Mapping[str, str]]
    """Of the gate's scores, and what they are called; the first is the one that stands in lists."""

    def __init__(self, folder: Path, projects: Projects, base_model: str) -> None:
        """Prepare.

        Args:
            folder: of the runs.
            projects: choices of projects.
            base_model: hub id or path of the model that answers where nothing else was chosen.
        """
        self.folder = folder
        self._projects = projects
        self._base_model = base_model
        self._name = re.compile(rf"{self.role}-[A-Za-z0-9._-]{{1,90}}")

    @abstractmethod
    def published(self, name: str, model_id: str, label: str, description: str = "") -> E:
        """The entry of a model that is no run."""

    @abstractmethod
    def read(self, folder: Path, metadata: M, metrics: Mapping[str, Any]) -> E:
        """The entry of a run's folder."""

    def base(self) -> E:
        """The installation's model as it was published."""
        about = "As published, not trained on any of your pictures."
        return self.published(BASE, self._base_model, self._base_model, about)

    def entries(self, project: int | None = None) -> list[E]:
        """The base, then the runs of a project, or all of them, newest first."""
        runs = [entry for entry in self._runs() if project is None or entry.project == project]
        return [self.base(), *runs]

    def entry(self, name: str) -> E:
        """A run by its id or the only beginning that fits it, or the base by ``base`` or its own name.

        Raises:
            RunError: there is none, or several begin so.
        """
        if name in (BASE, self._base_model):
            return self.base()
        if self._name.fullmatch(name) and (self.folder / name / METADATA_FILE).is_file():
            return self._read(self.folder / name)
        found = [entry for entry in self._runs() if entry.id.startswith(name)] if self._name.match(name) else []
        if len(found) == 1:
            return found[0]
        if found:
            raise self.error(f"'{name}' may be {', '.join(entry.id for entry in found)}; write one out.")
        raise self.error(f"There is no model '{name}'; `tator models {self.role} list` shows them all.")

    def resolve(self, name: str | None) -> E:
        """What is to be loaded for a name: None for the base, a run's id, or any other hub id or path.

        Raises:
            RunError: it is named like a run, and there is none.
        """
        if name is None:
            return self.base()
        if name == BASE or self._name.fullmatch(name):
            return self.entry(name)
        return self.published(name, name, name)

    def active(self, project: int | None) -> E:
        """The project's active model; the base where none was chosen.

        Raises:
            RunError: the chosen one is gone.
        """
        return self.entry(self.chosen(project))

    def chosen(self, project: int | None) -> str:
        """Id of the project's active model, whether it is still there or not."""
        return getattr(self._projects.get(project), self.role) or BASE

    def where_active(self) -> defaultdict[str, set[int]]:
        """Projects in which each run is active."""
        return self._projects.where_active(self.role)

    def activate(self, project: int, name: str, why: str, figures: Mapping[str, Any] | None = None, by: str = "") -> E:
        """Make a model the project's, from the next request on.

        Raises:
            RunError: there is none, or its weights are damaged.
        """
        entry = self.entry(name)
        self.check_weights(entry)  # a damaged one must not replace one that works
        self._projects.activate(project, None if entry.id == BASE else entry.id, why, figures, self.role, by)
        return entry

    def rollback(self, project: int, by: str = "") -> E:
        """Go back to the model that was active before.

        Raises:
            RunError: nothing was active before, or it is gone.
        """
        stack = self._projects.active_one_after_the_other(project, self.role)
        if len(stack) < 2:
            raise self.error(f"Project {project} has no earlier {self.title} to go back to.")
        entry = self.entry(stack[-2]) if stack[-2] else self.base()
        self._projects.activate(project, stack[-2], "rollback", role=self.role, by=by)
        return entry

    def add(
        self,
        metadata: M,
        metrics: Mapping[str, Any],
        write: Callable[[Path], None],
        examples: Sequence[Mapping[str, Any]] = (),
    ) -> E:
        """Take a run in; it appears whole or not at all.

        Args:
            metadata: ``id`` and ``created_at`` are replaced by the registry's own.
            metrics: JSON values.
            write: puts the weights into the folder it is given, as ``metadata.latest_checkpoint`` says.
            examples: pictures of the training.

        Raises:
            RunError: what was written cannot be read.
        """
        with unfinished(self.folder, ".part-") as partial:
            partial.chmod(0o755)
            write(partial)
            digest = self.check_weights(self.read(partial, metadata, {}))
            write_durably(partial / METRICS_FILE, _json(metrics))
            write_durably(partial / EXAMPLES_FILE, _json(list(examples)))
            now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
            while True:
                metadata = replace(
                    metadata, id=next_version(self.folder, self.role, metadata.project, digest), created_at=now
                )
                write_durably(partial / METADATA_FILE, _json(asdict(metadata)))
                try:
                    partial.rename(self.folder / metadata.id)
                except OSError:
                    if (self.folder / metadata.id).exists():  # another worker took the number meanwhile
                        continue
                    raise
                return self._read(self.folder / metadata.id)

    def archive(self, name: str, path: Path) -> Path:
        """Write a run as one zip: weights, metadata and metrics; the pictures it has seen stay here.

        Raises:
            RunError: there is none, it is the base, or the file exists already.
        """
        entry = self.entry(name)
        if entry.folder is None:
            raise self.error("The base model is not Tator's to give out; download it from where it came from.")
        if path.exists():
            raise self.error(f"{path} exists already; name another file or remove it.")
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.part")
        try:
            with zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:  # weights do not compress
                for file in sorted(entry.folder.rglob("*")):
                    if file.is_file() and file.name != EXAMPLES_FILE:
                        archive.write(file, file.relative_to(entry.folder).as_posix())
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
        return path

    def remove(self, name: str) -> E:
        """Delete a run's folder; at once it is in no list any more.

        Raises:
            RunError: there is none, it is the base, or it is active in a project.
        """
        entry = self.entry(name)
        if entry.folder is None:
            raise self.error("The base model is not one of Tator's runs, so it is not deleted here.")
        if used := self.where_active()[entry.id]:
            projects = ", ".join(map(str, sorted(used)))
            raise self.error(
                f"{entry.id} is active in project {projects}; `tator models {self.role} rollback --project N` or "
                "`activate` another one there first."
            )
        remove_version(entry.folder)
        return entry

    def check_weights(self, entry: E) -> str:
        """A digest of an entry's weights; of a base, which is not Tator's, its name.

        Raises:
            RunError: they are missing or damaged.
        """
        if entry.folder is None:
            return hashlib.sha256(entry.model_id.encode()).hexdigest()
        if (digest := digest_of(entry.weights)) is None:
            raise self.error(
                f"The weights of {entry.id} are missing or damaged ({entry.weights}); train it again, or bring back "
                "its folder."
            )
        return digest

    def _runs(self) -> list[E]:
        if not self.folder.exists():
            return []
        folders = [path for path in self.folder.iterdir() if self._name.fullmatch(path.name)]
        entries = []
        for folder in folders:
            try:
                entries.append(self._read(folder))
            except RunError:  # a damaged one is told to whoever names it, and hides no other
                continue
        return sorted(entries, key=lambda one: (one.metadata.created_at if one.metadata else "", one.id), reverse=True)

    def _read(self, folder: Path) -> E:
        try:
            metadata = self.metadata_type.from_json(json.loads((folder / METADATA_FILE).read_text()))
            metadata = replace(metadata, id=folder.name)
        except (OSError, ValueError, TypeError, AttributeError):
            raise self.error(
                f"{folder / METADATA_FILE} cannot be read; put it back from a copy, or remove the folder."
            ) from None
        try:
            metrics = dict(json.loads((folder / METRICS_FILE).read_text()))
        except (OSError, ValueError, TypeError):  # a model stays usable without its figures
            metrics = {}
        return self.read(folder, metadata, metrics)


def digest_of(folder: Path) -> str | None:
    """A digest of the safetensors in a folder; None where there are none, or one is damaged."""
    digest = hashlib.sha256()
    files = sorted(folder.glob("*.safetensors"))
    for file in files:
        try:
            with safe_open(file, framework="numpy") as tensors:  # reads the header, and that the file is as long
                tensors.keys()
            with file.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
        except (OSError, SafetensorError):
            return None
    return digest.hexdigest() if files else None


def _json(value: object) -> bytes:
    return (json.dumps(value, indent=1) + "\n").encode()
