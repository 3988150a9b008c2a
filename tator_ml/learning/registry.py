"""Every class head that was ever made, and which one is active in each project.

A head is a folder under ``home/heads``: weights and metadata (``head.*``), how it was made and how good it is
(``report.json``), and what it learned from (``examples.json``). Which one is active is a project's choice
(projects.py), read at each request, so that web, engine and workers see a change at once.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import shutil
import tempfile
import time
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tator_ml.engine.head import METADATA_FILE, WEIGHTS_FILE, Head
from tator_ml.projects import Projects
from tator_ml.versions import next_version, remove_version
from tator_sdk.errors import TatorError
from tator_sdk.files import write_durably
from tator_sdk.formats.archive import UNREADABLE

REPORT_FILE, EXAMPLES_FILE = "report.json", "examples.json"
FILES = (METADATA_FILE, WEIGHTS_FILE, REPORT_FILE, EXAMPLES_FILE)
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
MAX_ARCHIVE_BYTES = 512 * 2**20


class RegistryError(TatorError):
    """A head cannot be found, taken in or given out; the message is for a person."""


@dataclass(frozen=True)
class HeadEntry:
    """A head in the registry.

    Attributes:
        version: its name; ``folder`` where its files lie.
        project: Label Studio project it was trained for; None for one from a folder of pictures or an archive.
        created: seconds since the epoch.
        report: settings, metrics, decision of the gate.
    """

    version: str
    folder: Path
    project: int | None
    created: float
    report: Mapping[str, Any]

    def head(self) -> Head:
        """The head itself.

        Raises:
            HeadError: its files are missing or damaged.
        """
        return Head.load(self.folder)

    def about(self) -> dict[str, Any]:
        """What stands beside the weights: label map, encoder, threshold; empty where it cannot be read."""
        try:
            return dict(json.loads((self.folder / METADATA_FILE).read_text()))
        except (OSError, ValueError, TypeError):
            return {}

    def examples(self) -> list[dict[str, Any]]:
        """What it learned from: annotation, region, image, label, and whether it was held out."""
        path = self.folder / EXAMPLES_FILE
        return list(json.loads(path.read_text())) if path.exists() else []


class HeadRegistry:
    """The folder of heads, and the activations of projects."""

    def __init__(self, folder: Path, projects: Projects) -> None:
        self._folder = folder
        self._projects = projects

    def add(
        self,
        head: Head,
        project: int | None,
        report: Mapping[str, Any],
        examples: Sequence[Mapping[str, Any]] = (),
    ) -> HeadEntry:
        """Take a head in under a version of its own; it appears whole or not at all.

        Args:
            head: its ``version`` is replaced by the registry's.
            project: that it was trained for.
            report: JSON values.
            examples: what it learned from, JSON values.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        while True:
            version = next_version(self._folder, "head", project, head.digest)
            head = replace(head, version=version)
            created = time.time()
            content = {
                **head.files(report.get("metrics")),
                REPORT_FILE: _json({**report, "version": version, "project": project, "created": created}),
                EXAMPLES_FILE: _json(list(examples)),
            }
            partial = Path(tempfile.mkdtemp(dir=self._folder, prefix=".part-"))
            try:
                for name, data in content.items():
                    write_durably(partial / name, data)
                partial.chmod(0o755)
                partial.rename(self._folder / version)
            except OSError:
                shutil.rmtree(partial, ignore_errors=True)
                if (self._folder / version).exists():  # another worker took the number meanwhile
                    continue
                raise
            return HeadEntry(version, self._folder / version, project, created, json.loads(content[REPORT_FILE]))

    def get(self, version: str) -> HeadEntry:
        """The head of a version, or of the only one that begins so.

        Raises:
            RegistryError: there is none, or several begin so.
        """
        if NAME.fullmatch(version) and (self._folder / version / METADATA_FILE).exists():
            return self._entry(self._folder / version)
        found = [entry for entry in self.list() if entry.version.startswith(version)]
        if len(found) == 1:
            return found[0]
        if found:
            raise RegistryError(f"'{version}' may be {', '.join(entry.version for entry in found)}; write one out.")
        raise RegistryError(f"There is no head '{version}'; `tator models list` shows them all.")

    def list(self, project: int | None = None) -> list[HeadEntry]:
        """Heads of a project, or all of them, newest first."""
        if not self._folder.exists():
            return []
        folders = [path for path in self._folder.iterdir() if NAME.fullmatch(path.name) and path.is_dir()]
        entries = [self._entry(path) for path in folders if (path / METADATA_FILE).exists()]
        chosen = [entry for entry in entries if project is None or entry.project == project]
        return sorted(chosen, key=lambda entry: entry.created, reverse=True)

    def active(self, project: int) -> HeadEntry | None:
        """The project's active head; None where the default one answers."""
        version = self._projects.get(project).head
        return self.get(version) if version else None

    def files(self, version: str) -> dict[str, bytes]:
        """What an engine needs of a head, by file name.

        Raises:
            RegistryError: there is no such head.
            HeadError: its files are damaged.
        """
        return self.get(version).head().files()

    def activate(
        self, project: int, version: str, why: str, figures: Mapping[str, Any] | None = None, by: str = ""
    ) -> HeadEntry:
        """Make a head the project's, from the next request on.

        Raises:
            RegistryError: there is no such head.
            HeadError: its files are damaged.
        """
        entry = self.get(version)
        entry.head()  # a damaged one must not replace one that works
        self._projects.activate(project, entry.version, why, figures, by=by)
        return entry

    def rollback(self, project: int, by: str = "") -> HeadEntry | None:
        """Go back to the head that was active before; None where that is the default one.

        Raises:
            RegistryError: nothing was active before.
        """
        stack = self._projects.active_one_after_the_other(project)
        if len(stack) < 2:
            raise RegistryError(f"Project {project} has no earlier head to go back to.")
        before = stack[-2]
        entry = self.get(before) if before else None
        self._projects.activate(project, before, "rollback", by=by)
        return entry

    def remove(self, version: str) -> HeadEntry:
        """Delete a head's folder; at once it is in no list any more.

        Raises:
            RegistryError: there is none, or it is active in a project.
        """
        entry = self.get(version)
        if used := self._projects.where_active()[entry.version]:
            projects = ", ".join(map(str, sorted(used)))
            raise RegistryError(
                f"{entry.version} is active in project {projects}; `tator models rollback --project N` or `activate` "
                "another one there first."
            )
        remove_version(entry.folder)
        return entry

    def export(self, version: str, path: Path) -> Path:
        """Write a head as one zip archive; what it learned from stays here, since it names a project's data.

        Raises:
            RegistryError: there is no such head, or the file exists already.
        """
        entry = self.get(version)
        if path.exists():
            raise RegistryError(f"{path} exists already; name another file or remove it.")
        path.parent.mkdir(parents=True, exist_ok=True)
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
            for name in (METADATA_FILE, WEIGHTS_FILE, REPORT_FILE):
                if (entry.folder / name).exists():
                    archive.write(entry.folder / name, name)
        write_durably(path, stream.getvalue())
        return path

    def add_archive(self, path: Path, project: int | None = None) -> HeadEntry:
        """Take in a head that ``export`` wrote, or a head's folder.

        Raises:
            RegistryError: it is no such archive; a pickle is never opened.
            HeadError: its files are damaged.
        """
        if path.suffix in {".pkl", ".pickle", ".joblib"}:
            raise RegistryError(
                f"{path.name} is a pickle, which could run anything and is never opened; retrain with the same data: "
                "tator train clip --images-path FOLDER (or --project N)."
            )
        files = _files_of_folder(path) if path.is_dir() else _files_of_archive(path)
        head = Head.of_files(files, path.name)
        report = {}
        if REPORT_FILE in files:
            try:
                report = dict(json.loads(files[REPORT_FILE]))
                dict(report.get("metrics") or {})
            except (ValueError, TypeError, RecursionError):
                raise RegistryError(f"The report in {path.name} cannot be read; export the head again.") from None
        return self.add(head, project, {**report, "imported_from": path.name, "imported_version": head.version})

    def _entry(self, folder: Path) -> HeadEntry:
        report, created = {}, 0.0
        # a head stays usable without its report, and the others are listed
        with contextlib.suppress(OSError, ValueError, TypeError, OverflowError, RecursionError):
            read = dict(json.loads((folder / REPORT_FILE).read_text()))
            report, created = read, float(read.get("created") or 0.0)
        return HeadEntry(folder.name, folder, report.get("project"), created or folder.stat().st_mtime, report)


def _json(value: object) -> bytes:
    return (json.dumps(value, indent=1) + "\n").encode()


def _files_of_folder(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in FILES if (folder / name).is_file()}


def _files_of_archive(path: Path) -> dict[str, bytes]:
    """The known files of an archive; others are not even unpacked."""
    try:
        with zipfile.ZipFile(path) as archive:
            chosen = [info for info in archive.infolist() if info.filename in FILES]
            if sum(info.file_size for info in chosen) > MAX_ARCHIVE_BYTES:
                raise RegistryError(f"{path.name} unpacks to more than a head can be.")
            return {info.filename: archive.read(info) for info in chosen}
    except FileNotFoundError:
        raise RegistryError(f"There is no file {path}.") from None
    except UNREADABLE as error:
        raise RegistryError(f"{path.name} is not an archive that `tator models export` wrote.") from error
