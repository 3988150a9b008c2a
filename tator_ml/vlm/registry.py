"""Every Qwen that was tuned, beside the base model, and which one is active in each project.

A run is a folder under ``home/qwen``: what it is and how to ask it (``metadata.json``), how good it is
(``metrics.json``), the pictures it has seen (``examples.json``), and its weights as safetensors: an ``adapter`` over
the base model, or a whole ``model``. Which one is active is a project's choice (projects.py), read at each request.
Nothing here imports torch.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import re
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from tator_ml.engine.head import write_whole
from tator_ml.projects import Projects
from tator_ml.versions import next_version
from tator_ml.vlm.prompts import DEFAULT_TEMPLATE, PromptStyle
from tator_sdk.errors import TatorError
from tator_sdk.settings import Settings

METADATA_FILE, METRICS_FILE, EXAMPLES_FILE = "metadata.json", "metrics.json", "examples.json"
ADAPTER, WHOLE = "adapter", "model"
BASE = "base"
"""What the model without any tuning is called."""
NAME = re.compile(r"qwen-[A-Za-z0-9._-]{1,90}")


class QwenRegistryError(TatorError):
    """A tuned model cannot be found, taken in or given out; the message is for a person."""


@dataclass(frozen=True)
class RunMetadata:
    """What ``metadata.json`` holds, under the names that the original gave it, and a few of our own after them.

    Attributes:
        id: of the run, and of its folder.
        label: a name for people.
        system_prompt: the system message it was trained with.
        system_prompt_noise: share of its characters that were dropped in training, 0 to 0.3.
        dataset_context: a sentence about the pictures that goes with every prompt (``{extra_context}``).
        classes: it was trained to find.
        model_id: the base, by hub id or path.
        use_qlora: whether the base stood in 4 bits while the adapter was trained.
        max_image_dim: longest side of a picture in training, pixels.
        max_detections_per_sample: most objects that one answer had.
        created_at: ISO 8601, UTC.
        latest_checkpoint: of the weights, relative to the folder: ``adapter`` or ``model``.
        source_dataset: where its examples came from.
        method: ``lora``, ``qlora`` or ``whole``.
        image_type: what the pictures are (``{image_type}``).
        template: of the user message.
        description: a sentence for lists.
        project: of Label Studio that it was trained for; None for one from a data set.
        trained_by: the request, JSON values.
    """

    id: str
    label: str
    system_prompt: str
    system_prompt_noise: float
    dataset_context: str
    classes: tuple[str, ...]
    model_id: str
    use_qlora: bool
    max_image_dim: int
    max_detections_per_sample: int
    created_at: str
    latest_checkpoint: str
    source_dataset: str
    method: str = "lora"
    image_type: str = "image"
    template: str = DEFAULT_TEMPLATE
    description: str = ""
    project: int | None = None
    trained_by: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class QwenEntry:
    """A model that can be asked in words.

    Attributes:
        id: of the run; ``base`` for the installation's own; the model itself where it was named by hub id or path.
        model_id: what is loaded, by hub id or path: the base under an adapter, or the folder of a whole model.
        adapter: folder of the LoRA adapter (peft's layout); None without one.
        style: how it is asked: system prompt, template, image type, context.
        classes: it was trained on; empty for a base.
        metrics: of its training; empty for a base.
        description: a sentence for people.
        label: a name for people.
        project: of Label Studio that it was trained for.
        folder: of the run; None for a base.
        metadata: of the run; None for a base.
    """

    id: str
    model_id: str
    adapter: Path | None = None
    style: PromptStyle = field(default_factory=PromptStyle)
    classes: tuple[str, ...] = ()
    metrics: Mapping[str, Any] | None = None
    description: str = ""
    label: str = ""
    project: int | None = None
    folder: Path | None = None
    metadata: RunMetadata | None = None

    def examples(self) -> list[dict[str, Any]]:
        """The pictures of its training: content hash, and whether it was held out."""
        path = self.folder / EXAMPLES_FILE if self.folder else None
        return list(json.loads(path.read_text())) if path is not None and path.exists() else []


class QwenRegistry:
    """The base model, the folder of tuned ones, and the activations of projects."""

    def __init__(self, folder: Path, projects: Projects, base_model: str) -> None:
        """Prepare.

        Args:
            folder: of the runs.
            projects: choices of projects.
            base_model: hub id or path of the model that answers where nothing else was chosen.
        """
        self._folder = folder
        self._projects = projects
        self._base_model = base_model

    def base(self) -> QwenEntry:
        """The installation's model as it was published."""
        about = "As published, not trained on any of your pictures."
        return QwenEntry(BASE, self._base_model, description=about, label=self._base_model)

    def entries(self, project: int | None = None) -> list[QwenEntry]:
        """The base, then the runs of a project, or all of them, newest first."""
        runs = [entry for entry in self._runs() if project is None or entry.project == project]
        return [self.base(), *runs]

    def entry(self, name: str) -> QwenEntry:
        """A run by its id or the only beginning that fits it, or the base by ``base`` or its own name.

        Raises:
            QwenRegistryError: there is none, or several begin so.
        """
        if name in (BASE, self._base_model):
            return self.base()
        if NAME.fullmatch(name) and (self._folder / name / METADATA_FILE).is_file():
            return self._read(self._folder / name)
        found = [entry for entry in self._runs() if entry.id.startswith(name)] if NAME.match(name) else []
        if len(found) == 1:
            return found[0]
        if found:
            raise QwenRegistryError(f"'{name}' may be {', '.join(entry.id for entry in found)}; write one out.")
        raise QwenRegistryError(f"There is no model '{name}'; `tator models qwen list` shows them all.")

    def resolve(self, name: str | None) -> QwenEntry:
        """What is to be loaded for a name: None for the base, a run's id, or any other hub id or path.

        Raises:
            QwenRegistryError: it is named like a run, and there is none.
        """
        if name is None:
            return self.base()
        if name == BASE or NAME.fullmatch(name):
            return self.entry(name)
        return QwenEntry(name, name, label=name)

    def active(self, project: int | None) -> QwenEntry:
        """The project's active model; the base where none was chosen.

        Raises:
            QwenRegistryError: the chosen one is gone.
        """
        chosen = self._projects.get(project).qwen
        return self.entry(chosen) if chosen else self.base()

    def activate(self, project: int, name: str, why: str, figures: Mapping[str, Any] | None = None) -> QwenEntry:
        """Make a model the project's, from the next request on.

        Raises:
            QwenRegistryError: there is none, or its weights are damaged.
        """
        entry = self.entry(name)
        _check_weights(entry)  # a damaged one must not replace one that works
        self._projects.activate(project, None if entry.id == BASE else entry.id, why, figures, "qwen")
        return entry

    def rollback(self, project: int) -> QwenEntry:
        """Go back to the model that was active before.

        Raises:
            QwenRegistryError: nothing was active before, or it is gone.
        """
        stack = self._projects.active_one_after_the_other(project, "qwen")
        if len(stack) < 2:
            raise QwenRegistryError(f"Project {project} has no earlier Qwen to go back to.")
        entry = self.entry(stack[-2]) if stack[-2] else self.base()
        self._projects.activate(project, stack[-2], "rollback", role="qwen")
        return entry

    def add(
        self,
        metadata: RunMetadata,
        metrics: Mapping[str, Any],
        write: Callable[[Path], None],
        examples: Sequence[Mapping[str, Any]] = (),
    ) -> QwenEntry:
        """Take a run in; it appears whole or not at all.

        Args:
            metadata: ``id`` and ``created_at`` are replaced by the registry's own.
            metrics: JSON values.
            write: puts the weights into the folder it is given, as ``metadata.latest_checkpoint`` says.
            examples: pictures of the training.

        Raises:
            QwenRegistryError: what was written cannot be read.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(dir=self._folder, prefix=".part-"))
        try:
            partial.chmod(0o755)
            write(partial)
            digest = _check_weights(_entry(partial, metadata, {}))
            write_whole(partial / METRICS_FILE, _json(metrics))
            write_whole(partial / EXAMPLES_FILE, _json(list(examples)))
            now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
            while True:
                metadata = replace(
                    metadata, id=next_version(self._folder, "qwen", metadata.project, digest), created_at=now
                )
                write_whole(partial / METADATA_FILE, _json(asdict(metadata)))
                try:
                    partial.rename(self._folder / metadata.id)
                except OSError:
                    if (self._folder / metadata.id).exists():  # another worker took the number meanwhile
                        continue
                    raise
                return self._read(self._folder / metadata.id)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise

    def archive(self, name: str, path: Path) -> Path:
        """Write a run as one zip: weights, metadata and metrics; the pictures it has seen stay here.

        Raises:
            QwenRegistryError: there is none, it is the base, or the file exists already.
        """
        entry = self.entry(name)
        if entry.folder is None:
            raise QwenRegistryError("The base model is not Tator's to give out; download it from where it came from.")
        if path.exists():
            raise QwenRegistryError(f"{path} exists already; name another file or remove it.")
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

    def _runs(self) -> list[QwenEntry]:
        if not self._folder.exists():
            return []
        folders = [path for path in self._folder.iterdir() if NAME.fullmatch(path.name)]
        entries = []
        for folder in folders:
            try:
                entries.append(self._read(folder))
            except QwenRegistryError:  # a damaged one is told to whoever names it, and hides no other
                continue
        return sorted(entries, key=lambda one: (one.metadata.created_at if one.metadata else "", one.id), reverse=True)

    def _read(self, folder: Path) -> QwenEntry:
        try:
            known = {one.name for one in fields(RunMetadata)}
            kept = json.loads((folder / METADATA_FILE).read_text()).items()
            metadata = RunMetadata(**{name: value for name, value in kept if name in known})
            metadata = replace(metadata, id=folder.name, classes=tuple(metadata.classes))
        except (OSError, ValueError, TypeError, AttributeError):
            raise QwenRegistryError(
                f"{folder / METADATA_FILE} cannot be read; put it back from a copy, or remove the folder."
            ) from None
        try:
            metrics = dict(json.loads((folder / METRICS_FILE).read_text()))
        except (OSError, ValueError, TypeError):  # a model stays usable without its figures
            metrics = {}
        return _entry(folder, metadata, metrics)


def qwen_registry(settings: Settings) -> QwenRegistry:
    """The registry of an installation."""
    return QwenRegistry(settings.home / "qwen", Projects(settings.home / "projects"), settings.qwen_model_name)


def style_of(metadata: RunMetadata) -> PromptStyle:
    """How a run is asked: as it was trained."""
    return PromptStyle(metadata.system_prompt, metadata.template, metadata.image_type, metadata.dataset_context)


def _entry(folder: Path, metadata: RunMetadata, metrics: Mapping[str, Any]) -> QwenEntry:
    whole = metadata.latest_checkpoint == WHOLE
    return QwenEntry(
        id=metadata.id,
        model_id=str(folder / WHOLE) if whole else metadata.model_id,
        adapter=None if whole else folder / ADAPTER,
        style=style_of(metadata),
        classes=metadata.classes,
        metrics=metrics,
        description=metadata.description,
        label=metadata.label,
        project=metadata.project,
        folder=folder,
        metadata=metadata,
    )


def _check_weights(entry: QwenEntry) -> str:
    """A digest of an entry's weights; of a base, which is not Tator's, its name.

    Raises:
        QwenRegistryError: they are missing or damaged.
    """
    if entry.folder is None:
        return hashlib.sha256(entry.model_id.encode()).hexdigest()
    place = entry.adapter or Path(entry.model_id)
    digest = hashlib.sha256()
    files = sorted(place.glob("*.safetensors"))
    for file in files:
        try:
            with safe_open(file, framework="numpy") as tensors:  # reads the header, and that the file is as long
                tensors.keys()
            with file.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
        except (OSError, SafetensorError):
            files = []
            break
    if not files:
        raise QwenRegistryError(
            f"The weights of {entry.id} are missing or damaged ({place}); train it again, or bring back its folder."
        )
    return digest.hexdigest()


def _json(value: object) -> bytes:
    return (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode()
