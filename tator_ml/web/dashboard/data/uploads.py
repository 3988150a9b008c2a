"""Archives that somebody sent: each in a folder of its own under home, until it is imported, kept or thrown away."""

from __future__ import annotations

import json
import re
import secrets
import shutil
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from werkzeug.exceptions import NotFound

from tator_ml.jobs.records import JobError
from tator_ml.launch import open_jobs
from tator_ml.web.access import Visitor
from tator_sdk.files import write_durably
from tator_sdk.formats.writing import safe_name
from tator_sdk.looking import LOOK_FILE, PROGRESS_FILE
from tator_sdk.settings import Settings

ID = re.compile(r"[0-9a-f]{12}")
ABOUT = "upload.json"
COMING = "coming.part"
KEPT_SECONDS = 30 * 24 * 3600
"""After this long without a change an upload that nobody wanted is thrown away."""


@dataclass(frozen=True)
class Upload:
    """An archive that was sent.

    Attributes:
        id: of the upload.
        name: of the file, as it was called where it came from.
        nbytes: of the file.
        who: sent it.
        moment: seconds since the epoch.
        project: that it is looked at for; None for none.
        job: that imports or keeps it; empty before.
    """

    id: str
    name: str
    nbytes: int
    who: str
    moment: float
    project: int | None = None
    job: str = ""

    def may_be_seen_by(self, who: Visitor) -> bool:
        """Whether it is theirs: who sent it, and administrators."""
        return who.administrator or who.name == self.who


class Uploads:
    """The uploads of an installation."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._folder = settings.home / "uploads"

    def folder_of(self, upload: Upload) -> Path:
        """Where it lies."""
        return self._folder / upload.id

    def begin(self) -> tuple[str, Path]:
        """The id of a new one, and the file that takes its archive as long as it comes."""
        self._throw_old_away()
        new = secrets.token_hex(6)
        place = self._folder / new
        place.mkdir(parents=True)
        return new, place / COMING

    def complete(self, upload_id: str, name: str, who: Visitor, project: int | None) -> Upload:
        """Name one after its file, once all of it has come."""
        coming = self._folder / upload_id / COMING
        archive = coming.rename(coming.with_name(f"{safe_name(Path(name).stem)}.zip"))
        return self.keep(Upload(upload_id, name, archive.stat().st_size, who.name, time.time(), project))

    def keep(self, upload: Upload) -> Upload:
        """Write down what is known about one."""
        write_durably(self.folder_of(upload) / ABOUT, json.dumps(asdict(upload)).encode())
        return upload

    def look_anew(self, upload: Upload, project: int | None) -> Upload:
        """Forget what was found, for another project."""
        for name in (LOOK_FILE, PROGRESS_FILE):
            (self.folder_of(upload) / name).unlink(missing_ok=True)
        return self.keep(replace(upload, project=project))

    def get(self, upload_id: str, who: Visitor) -> Upload:
        """One that a visitor may see.

        Raises:
            NotFound: there is none that is theirs.
        """
        found = self._read(upload_id) if ID.fullmatch(upload_id) else None
        if found is None or not found.may_be_seen_by(who):
            raise NotFound("There is no such upload of yours; it may have been thrown away.")
        return found

    def list(self, who: Visitor) -> list[Upload]:
        """Those that a visitor may see, the newest first."""
        names = [one.name for one in self._folder.iterdir()] if self._folder.is_dir() else []
        found = [one for name in names if (one := self._read(name)) is not None and one.may_be_seen_by(who)]
        return sorted(found, key=lambda one: one.moment, reverse=True)

    def throw_away(self, upload_id: str) -> None:
        """Remove one with everything of it."""
        if ID.fullmatch(upload_id):
            shutil.rmtree(self._folder / upload_id, ignore_errors=True)

    def reader_of(self, upload_id: str) -> str | None:
        """Id of a job that reads from one and has not ended; None where none does.

        Raises:
            JobError: Redis does not answer.
        """
        folder = (self._folder / upload_id).resolve()
        for job in open_jobs(self._settings):
            if (path := job.request.get("path")) and Path(path).resolve().is_relative_to(folder):
                return job.id
        return None

    def _read(self, upload_id: str) -> Upload | None:
        try:
            return Upload(**json.loads((self._folder / upload_id / ABOUT).read_bytes()))
        except (OSError, ValueError, TypeError):
            return None

    def _throw_old_away(self) -> None:
        if not self._folder.is_dir():
            return
        for place in self._folder.iterdir():
            if not ID.fullmatch(place.name) or time.time() - place.stat().st_mtime < KEPT_SECONDS:
                continue
            with suppress(JobError):  # while Redis is away, nobody knows what is read
                if self.reader_of(place.name) is None:
                    self.throw_away(place.name)
