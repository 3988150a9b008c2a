"""What the pages about data share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from flask import Response, send_file
from werkzeug.exceptions import NotFound

from tator_ml.jobs.connection import reached
from tator_ml.jobs.records import JobRecord, JobRecords
from tator_ml.web.access import Visitor, visitor
from tator_ml.web.dashboard.data.errands import Errands
from tator_ml.web.dashboard.data.uploads import Uploads
from tator_ml.web.dashboard.page import Dashboard, seen_by
from tator_sdk.datasets import DatasetRecord, DatasetRegistry
from tator_sdk.looking import Look

SHOWN_JOBS = 8
LOOKED_AT = 200


@dataclass(frozen=True)
class Data:
    """What these pages are made from.

    Attributes:
        dashboard: the parts of the backend.
        errands: looks at data sets that go on.
        uploads: archives that somebody sent.
    """

    dashboard: Dashboard
    errands: Errands
    uploads: Uploads

    @property
    def registry(self) -> DatasetRegistry:
        """The data sets of this installation."""
        return DatasetRegistry(self.dashboard.settings.home)

    def look_folder(self, record: DatasetRecord) -> Path:
        """Where pictures of a data set are kept, as it was when they were drawn."""
        return (self.dashboard.settings.home / "looks" / f"{record.id}-{record.fingerprint[:12]}").resolve()

    def pictures_of(self, record: DatasetRecord) -> Look | None:
        """Some pictures of a data set; None while they are drawn, which is asked for here."""
        folder = self.look_folder(record)
        words = ("set", record.id, str(folder))
        if (found := Look.read(folder)) is None and Path(record.path).exists():
            if self.errands.failed(*words):
                return Look(error="Its pictures could not be drawn; the log of Tator's web process says why.")
            self.errands.send(*words)
        return found

    def project_choices(self, any_: str = "", also: int | None = None) -> list[tuple[str, str]]:
        """Projects that the visitor may see, to choose one.

        Args:
            any_: what none of them is called, where none can be chosen.
            also: one more that is theirs, though Label Studio may not have named it yet.
        """
        titles, who = self.dashboard.titles, visitor()
        known = {*titles.all(), *(who.projects or ()), *([] if also is None else [also])}
        return [*([("", any_)] if any_ else []), *((str(one), titles.named(one)) for one in seen_by(who, known))]

    def name_of(self, project: int | None) -> str:
        """A project for people; empty for none."""
        return "" if project is None else self.dashboard.titles.named(project)

    def sets_seen(self) -> list[DatasetRecord]:
        """Data sets that the visitor may see, the newest first."""
        return [one for one in self.registry.list() if may_see_set(visitor(), one)]

    def recent(self, kinds: Sequence[str]) -> list[JobRecord]:
        """The newest jobs of some kinds that the visitor may see."""
        with reached(self.dashboard.settings) as connection:
            listed = JobRecords(connection).list(limit=LOOKED_AT)
        who = visitor()
        return [one for one in listed if one.kind in kinds and who.may_see(one.project)][:SHOWN_JOBS]


def project_of(record: DatasetRecord) -> int | None:
    """The project that a data set was made from or belongs to."""
    number = record.source.get("project")
    return number if isinstance(number, int) else None


def may_see_set(who: Visitor, record: DatasetRecord) -> bool:
    """Whether a data set is theirs to see: that of their project, or any for an administrator."""
    return who.may_see(project_of(record))


def sample_picture(folder: Path, file: str) -> Response:
    """A small picture of a look.

    Raises:
        NotFound: there is none of that name.
    """
    path = folder / "samples" / file
    if not file.endswith(".jpg") or Path(file).name != file or not path.is_file():
        raise NotFound("There is no such picture.")
    answer = send_file(path, "image/jpeg", max_age=0, etag=True)
    answer.direct_passthrough = False
    return answer
