"""Work packages: disjoint parts of a project's unlabelled tasks, one person each; values, shares and records."""

from __future__ import annotations

import json
import re
import secrets
import time
from bisect import bisect_left
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tator_sdk.errors import TatorError
from tator_sdk.files import write_durably
from tator_sdk.settings import Settings

PACKAGE_ID = re.compile(r"package-(\d+)-[0-9a-f]{12}")
LONGEST_NAME = 80


@dataclass(frozen=True)
class Share:
    """How much of the work somebody gets.

    Attributes:
        person: a name or e-mail address.
        weight: against the weights of the others; 0 for nothing.
    """

    person: str
    weight: int = 1


@dataclass(frozen=True)
class Package:
    """A part of a project's tasks that is somebody's.

    Attributes:
        id: ``package-PROJECT-HEX``.
        batch: the same for all that were handed out together.
        project: number of the project.
        person: whose it is.
        tasks: numbers of its tasks, in order.
        view: number of its tab in the Data Manager; None until it is made.
        handed_out: seconds since the epoch.
    """

    id: str
    batch: str
    project: int
    person: str
    tasks: tuple[int, ...]
    view: int | None
    handed_out: float

    @classmethod
    def new(cls, project: int, batch: str, person: str, tasks: Sequence[int]) -> Package:
        """A package that has no tab yet."""
        return cls(f"package-{project}-{secrets.token_hex(6)}", batch, project, person, tuple(tasks), None, time.time())

    @property
    def title(self) -> str:
        """Of its tab."""
        return f"Tator: {self.person}"


def divide(tasks: Sequence[int], shares: Sequence[Share]) -> list[tuple[str, tuple[int, ...]]]:
    """Cut tasks into parts that lie one after another, as large as the weights say (largest remainders).

    Returns:
        Person and tasks, in the order of the shares; together all tasks, none twice.

    Raises:
        TatorError: nobody has a weight, or somebody comes twice.
    """
    named = [share.person for share in shares]
    if len(set(named)) < len(named):
        raise TatorError("Somebody is named twice; give each person one share.")
    whole = sum(share.weight for share in shares)
    if whole <= 0 or any(share.weight < 0 for share in shares):
        raise TatorError("Nobody gets anything; give at least one person a share above 0.")
    exact = [len(tasks) * share.weight / whole for share in shares]
    sizes = [int(size) for size in exact]
    most_cut = sorted(range(len(shares)), key=lambda row: (sizes[row] - exact[row], row))
    for row in most_cut[: len(tasks) - sum(sizes)]:
        sizes[row] += 1
    parts, first = [], 0
    for share, size in zip(shares, sizes, strict=True):
        parts.append((share.person, tuple(tasks[first : first + size])))
        first += size
    return parts


def ranges(tasks: Sequence[int], others: Collection[int]) -> list[tuple[int, int]]:
    """The fewest ranges of numbers that hold all of some tasks and none of the others'.

    Args:
        tasks: in order.
        others: numbers that must lie in none of them.

    Returns:
        First and last number of each, both inclusive.
    """
    foreign = sorted(others)
    found: list[tuple[int, int]] = []
    for task in tasks:
        if found and bisect_left(foreign, found[-1][1]) == bisect_left(foreign, task):
            found[-1] = (found[-1][0], task)
        else:
            found.append((task, task))
    return found


class PackageRecords:
    """The open packages of an installation, a file each."""

    def __init__(self, settings: Settings) -> None:
        self.folder = settings.home / "packages"

    def of(self, project: int) -> list[Package]:
        """A project's, the oldest first."""
        files = self.folder.glob(f"package-{project}-*.json") if self.folder.is_dir() else ()
        return sorted((self._read(file) for file in files), key=lambda one: (one.handed_out, one.tasks))

    def lock(self, project: int) -> Path:
        """What is locked while a project's packages are changed."""
        return self.folder / f"project-{project}"

    def keep(self, package: Package) -> None:
        """Write one down."""
        content = json.dumps(asdict(package), separators=(",", ":")) + "\n"
        write_durably(self._path(package.id), content.encode())

    def forget(self, package: Package) -> None:
        """Its tasks are nobody's again."""
        self._path(package.id).unlink(missing_ok=True)

    def _path(self, package_id: str) -> Path:
        if not PACKAGE_ID.fullmatch(package_id):
            raise TatorError(f"'{package_id}' is no id of a work package.")
        return self.folder / f"{package_id}.json"

    @staticmethod
    def _read(path: Path) -> Package:
        try:
            kept = json.loads(path.read_bytes())
            return Package(**{**kept, "tasks": tuple(kept["tasks"])})
        except (ValueError, TypeError, KeyError) as error:
            raise TatorError(f"The record {path.name} is damaged; move it away to go on without it.") from error
