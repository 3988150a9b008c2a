"""The three registries of an installation as one: lists, looks, and what people do with a version."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from werkzeug.exceptions import Forbidden, NotFound

from tator_ml.learning.stores import head_registry
from tator_ml.projects import Activation, Projects, Role
from tator_ml.runs import BASE, RunRegistry
from tator_ml.sam3.registry import sam3_registry
from tator_ml.vlm.registry import qwen_registry
from tator_ml.web.access import Visitor
from tator_ml.web.dashboard.models.versions import HEAD_FIGURES, ROLES, TITLES, Version, of_head, of_run
from tator_sdk.errors import TatorError
from tator_sdk.settings import Settings


class Catalogue:
    """Versions of heads, Qwens and SAM 3s, and which one is active where."""

    def __init__(self, settings: Settings, projects: Projects) -> None:
        """``projects`` are the choices that the web process reads."""
        self.projects = projects
        self._settings = settings
        self._heads = head_registry(settings, projects)
        self._runs: dict[Role, RunRegistry[Any, Any]] = {
            "qwen": qwen_registry(settings, projects),
            "sam3": sam3_registry(settings, projects),
        }

    def figures(self, role: Role) -> Mapping[str, str]:
        """Figures of a role's versions and what they are called, the main one first."""
        return HEAD_FIGURES if role == "head" else self._runs[role].figures

    def versions(self, role: Role) -> list[Version]:
        """All that was trained or taken in, the newest first; no base."""
        if role == "head":
            return [of_head(one) for one in self._heads.list()]
        registry = self._runs[role]
        return [of_run(one, role, registry.figures) for one in registry.entries() if one.folder is not None]

    def default(self, role: Role) -> Version:
        """What answers where nothing was chosen."""
        if role == "head":
            own = str(self._settings.head) if self._settings.head else "starter"
            about = "The head of this installation, for projects that have none of their own."
            return Version(role="head", id=BASE, label=own, description=about, facts={"Model": own})
        registry = self._runs[role]
        return of_run(registry.base(), role, registry.figures)

    def version(self, role: Role, name: str) -> Version:
        """One version by its whole id, or the default by ``base``.

        Raises:
            NotFound: there is none.
        """
        if name == BASE:
            return self.default(role)
        try:
            if role == "head":
                found = of_head(self._heads.get(name))
            else:
                found = of_run(self._runs[role].entry(name), role, self._runs[role].figures)
        except TatorError as error:
            raise NotFound(str(error)) from error
        if found.id != name:
            raise NotFound(f"There is no {TITLES[role]} '{name}'.")
        return found

    def active(self, role: Role, project: int) -> Version:
        """What answers in a project; the chosen one without anything known of it where it is gone."""
        chosen = getattr(self.projects.get(project), role)
        if chosen is None:
            return self.default(role)
        try:
            return self.version(role, chosen)
        except NotFound as error:
            gone = f"It is chosen, but it is not there any more: {error.description}"
            return Version(role=role, id=chosen, description=gone, project=project)

    def where_active(self) -> dict[str, set[int]]:
        """Projects in which each version is active, by `Version.key`."""
        return {
            f"{role}:{version}": used for role in ROLES for version, used in self.projects.where_active(role).items()
        }

    def history(self, role: Role, project: int) -> list[Activation]:
        """How a project's model changed, the newest first."""
        return self.projects.activations(project, role)[::-1]

    def earlier(self, role: Role, project: int) -> bool:
        """Whether there is a model to go back to."""
        return len(self.projects.active_one_after_the_other(project, role)) > 1

    def activate(self, version: Version, project: int, by: str) -> None:
        """Make a version a project's, from the next request on.

        Raises:
            TatorError: its files are damaged.
        """
        if version.role == "head":
            if version.id == BASE:
                self.projects.activate(project, None, "person", by=by)
            else:
                self._heads.activate(project, version.id, "person", version.gate, by)
            return
        self._runs[version.role].activate(project, version.id, "person", version.gate, by)

    def roll_back(self, role: Role, project: int, by: str) -> str:
        """Go back to what was active before; returns its id.

        Raises:
            TatorError: there is nothing to go back to, or it is gone.
        """
        if role == "head":
            entry = self._heads.rollback(project, by)
            return entry.version if entry else BASE
        return str(self._runs[role].rollback(project, by).id)

    def remove(self, version: Version) -> None:
        """Delete a version's files for good.

        Raises:
            TatorError: it is the base, or active in a project.
        """
        if version.role == "head":
            self._heads.remove(version.id)
        else:
            self._runs[version.role].remove(version.id)

    def pack(self, version: Version, path: Path) -> Path:
        """Write a version as one zip, without what it learned from.

        Raises:
            TatorError: it is the base, or the file exists already.
        """
        if version.role == "head":
            return self._heads.export(version.id, path)
        return self._runs[version.role].archive(version.id, path)

    def take_in(self, path: Path, project: int | None) -> Version:
        """Take in a head that ``pack`` wrote.

        Raises:
            TatorError: it is something else, or damaged; a pickle is never opened.
        """
        return of_head(self._heads.add_archive(path, project))

    def seen_by(self, who: Visitor, version: Version, used: Mapping[str, set[int]] | None = None) -> bool:
        """Whether a visitor may look at a version: it is for a project of theirs, or answers in one, or is a base."""
        if version.id == BASE or who.may_see(version.project):
            return True
        used = self.where_active() if used is None else used
        return any(who.may_see(project) for project in used.get(version.key, ()))

    def require(self, who: Visitor, version: Version) -> Version:
        """Let nobody look who may not.

        Raises:
            Forbidden: it is not theirs.
        """
        if not self.seen_by(who, version):
            raise Forbidden("This model belongs to a project that your Label Studio token may not see.")
        return version
