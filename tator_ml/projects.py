"""Choices that hold for one Label Studio project, seen by every process at its next request."""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from tator_sdk.errors import TatorError

ASSISTS = ("refine", "classify")


@dataclass(frozen=True)
class ProjectChoices:
    """Choices of a project; None leaves the decision to the tags and the defaults.

    Attributes:
        assists: of ``refine`` and ``classify``, what a prompt on this project gets.
    """

    assists: tuple[str, ...] | None = None


class Projects:
    """One small JSON file for each project, replaced atomically."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, project_id: int | None) -> ProjectChoices:
        """The choices of a project; defaults where none were made."""
        if project_id is None:
            return ProjectChoices()
        try:
            kept = json.loads((self._folder / f"{project_id}.json").read_text())
        except FileNotFoundError:
            return ProjectChoices()
        except ValueError as error:
            raise TatorError(
                f"The choices of project {project_id} cannot be read; delete {self._folder / str(project_id)}.json."
            ) from error
        assists = kept.get("assists")
        return ProjectChoices(tuple(assists) if assists is not None else None)

    def set(self, project_id: int, choices: ProjectChoices) -> None:
        """Keep the choices of a project.

        Raises:
            TatorError: an assist that does not exist.
        """
        unknown = set(choices.assists or ()) - set(ASSISTS)
        if unknown:
            raise TatorError(f"There is no assist '{min(unknown)}'; choose of {', '.join(ASSISTS)}.")
        self._folder.mkdir(parents=True, exist_ok=True)
        handle, partial = tempfile.mkstemp(dir=self._folder)
        with os.fdopen(handle, "w") as file:
            json.dump(asdict(choices), file)
        Path(partial).replace(self._folder / f"{project_id}.json")
