"""What an import did: kept under Tator's home, so that it can be completed and undone."""

from __future__ import annotations

import json
import re
import secrets
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from tator_sdk.errors import TatorError
from tator_sdk.files import alone, write_durably
from tator_sdk.settings import Settings

IMPORT_ID = re.compile(r"import-(\d+)-([0-9a-f]{12})")
State = Literal["begun", "done", "undone"]


@dataclass(frozen=True)
class ImportRecord:
    """An import.

    Attributes:
        id: ``import-PROJECT-HEX``; it stands in the ``meta`` of its tasks, and its number in its annotations.
        project: it went into.
        request: what was asked for, as JSON values; the same again completes an import that was interrupted.
        state: ``begun`` until it is complete.
        begun: seconds since the epoch.
        summary: what was imported, once it is complete.
    """

    id: str
    project: int
    request: dict[str, Any]
    state: State = "begun"
    begun: float = 0.0
    summary: dict[str, Any] = field(default_factory=dict)

    @property
    def number(self) -> int:
        """What marks its annotations: Label Studio keeps it as their ``import_id``, a whole number of 63 bits."""
        return int(_matched(self.id)[2], 16)


class ImportRecords:
    """The imports of an installation, a file each."""

    def __init__(self, settings: Settings) -> None:
        self.folder = settings.home / "imports"

    def begin(self, project: int, request: Mapping[str, Any]) -> ImportRecord:
        """The record of an import: that of the same request before, unless it was undone; or a new one."""
        for record in self.list():
            if record.state != "undone" and record.project == project and record.request == request:
                return record
        record = ImportRecord(f"import-{project}-{secrets.token_hex(6)}", project, dict(request), begun=time.time())
        self._write(record)
        return record

    def list(self) -> list[ImportRecord]:
        """All of them, the oldest first."""
        files = self.folder.glob("import-*.json") if self.folder.is_dir() else ()
        return sorted((self._read(file) for file in files), key=lambda record: record.begun)

    def get(self, import_id: str) -> ImportRecord:
        """The record of that id.

        Raises:
            TatorError: there is none.
        """
        _matched(import_id)
        path = self._path(import_id)
        if not path.exists():
            raise TatorError(
                f"There is no record of {import_id} in {self.folder}; it is kept where the import was run (TATOR_HOME)."
            )
        return self._read(path)

    def alone(self, project: int) -> AbstractContextManager[None]:
        """Neither import into a project nor undo an import there in two processes at once.

        Raises:
            TatorError: another process does, from the context's begin.
        """
        busy = f"Another import into project {project}, or an undo there, is running here; wait for it to end."
        return alone(self.folder / f"project-{project}", busy)

    def close(self, record: ImportRecord, state: State, summary: Mapping[str, Any]) -> ImportRecord:
        """Write down how it ended."""
        closed = replace(record, state=state, summary=dict(summary))
        self._write(closed)
        return closed

    def _write(self, record: ImportRecord) -> None:
        write_durably(self._path(record.id), (json.dumps(asdict(record), indent=1) + "\n").encode())

    def _path(self, import_id: str) -> Path:
        return self.folder / f"{import_id}.json"

    @staticmethod
    def _read(path: Path) -> ImportRecord:
        try:
            return ImportRecord(**json.loads(path.read_bytes()))
        except (ValueError, TypeError) as error:
            raise TatorError(f"The record {path} is damaged; move it away to go on without it.") from error


def _matched(import_id: str) -> re.Match[str]:
    found = IMPORT_ID.fullmatch(import_id)
    if not found:
        raise TatorError(f"'{import_id}' is no id of an import; one looks like import-3-0f1e2d3c4b5a.")
    return found


def mark_of(task: Mapping[str, Any]) -> dict[str, str] | None:
    """What an import wrote into a task's ``meta``: ``import`` and ``key``; None for all other tasks."""
    meta = task.get("meta")
    mark = meta.get("tator") if isinstance(meta, Mapping) else None
    return mark if isinstance(mark, dict) and {"import", "key"} <= mark.keys() else None
