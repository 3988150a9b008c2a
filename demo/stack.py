"""The whole stack with a connected project: what the demo, its check and the end-to-end tests run on."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from demo import pictures
from demo.label_studio import LabelStudio, StudioSettings
from label_config.build import build
from tator_ml.projects import Projects
from tator_ml.running.processes import Report, Supervisor
from tator_ml.up import start_back, start_front
from tator_sdk.connect import TITLE, Connection, strip_url
from tator_sdk.errors import TatorError
from tator_sdk.formats.pictures import is_picture
from tator_sdk.settings import Settings
from tator_sdk.studio import open_studio, sentences

PROJECT = "Tator demo"
OWN_PROJECT = "Tator demo, own pictures"


@dataclass(frozen=True)
class DemoSettings:
    """What a demo is made of.

    Attributes:
        home: folder of everything it keeps.
        images: a person's own pictures instead of generated scenes.
        classes: with ``images``, their classes.
        template: labelling configuration.
        scenes: without ``images``, how many are generated.
        studio_port: preferred port of Label Studio.
        tator: settings of Tator that differ from the defaults.
        studio_variables: environment variables of Label Studio that differ, such as another database.
    """

    home: Path
    images: Path | None = None
    classes: Sequence[str] = ("Object",)
    template: str = "boxes"
    scenes: int = pictures.SCENES
    studio_port: int = 8080
    tator: dict[str, Any] = field(default_factory=dict)
    studio_variables: Mapping[str, str] = field(default_factory=dict)


class DemoStack:
    """Label Studio, Redis, engine, web and worker with a connected project; stops all of them on exit.

    Attributes:
        studio: the running Label Studio.
        settings: Tator's, with the addresses that were really taken.
        project: the project's number.
        backend: the ML backend's number in Label Studio.
        folder: where the pictures lie.
    """

    def __init__(self, wanted: DemoSettings, report: Report) -> None:
        self._wanted = wanted
        self._report = report
        self._files = wanted.home / "demo-files"
        self.folder = self._files / ("own" if wanted.images else "scenes")
        self.studio = LabelStudio(
            StudioSettings(
                home=wanted.home / "label-studio",
                port=wanted.studio_port,
                document_root=self._files,
                variables=wanted.studio_variables,
            )
        )
        self.parts = Supervisor(wanted.home, report)
        self.settings = Settings.model_validate({**Settings().model_dump(), "home": wanted.home, **wanted.tator})
        self.project = self.backend = 0

    def __enter__(self) -> DemoStack:
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.parts.stop()
        finally:
            self.studio.stop()

    def _start(self) -> None:
        if self._wanted.images:  # where there are none, that is said before anything starts
            self._make_pictures()
        with ThreadPoolExecutor(1) as pool:  # Label Studio starts while scenes are drawn and the engine starts
            starting = pool.submit(self.studio.start, self._report)
            try:
                if not self._wanted.images:
                    self._make_pictures()
                start_back(self.settings, self.parts)
            except BaseException:
                self.studio.stop()  # else the pool would wait for it to answer
                raise
            starting.result()
        self._report(f"Label Studio is ready at {self.studio.url}")
        access = {
            "label_studio_url": self.studio.url,
            "label_studio_api_key": SecretStr(self.studio.personal_access_token()),
        }
        self.settings = start_front(self.settings.model_copy(update=access), self.parts)
        self._connect()

    def _make_pictures(self) -> None:
        source, count = self._wanted.images, self._wanted.scenes
        made = pictures.copy_own(source, self.folder) if source else pictures.draw_scenes(self.folder, count)
        count, told = 0, time.monotonic()
        for count in made:
            if time.monotonic() - told > 2:
                told = time.monotonic()
                self._report(f"{count} pictures so far")
        if not count:
            raise TatorError(f"There are no pictures in {source}.")
        self._report(f"{count} pictures in {self.folder}")

    def _connect(self) -> None:
        """Project, tasks and connection: whatever is missing is made, nothing is doubled."""
        own, settings = self._wanted.images is not None, self.settings
        studio: Any = open_studio(settings)  # the SDK's answers have optional fields throughout
        title = OWN_PROJECT if own else PROJECT
        classes = list(self._wanted.classes) if own else pictures.classes()
        with sentences(settings.label_studio_url):
            found = [project for project in studio.projects.list() if project.title == title]
            project = found[0] if found else studio.projects.create(title=title, label_config="<View/>")
            url = strip_url(settings, settings.backend_url, project.id)
            config = build(self._wanted.template, classes, url, project=project.id)
            if project.label_config != config:
                studio.projects.update(project.id, label_config=config)
            self._import(studio, project.id)
            for row in studio.ml.list(project=project.id):  # an earlier run may have had another port
                if row.title == TITLE and row.url != settings.backend_url:
                    self._disconnect(studio, project.id, row)
            for step in Connection(settings, project.id, settings.backend_url).run():
                self._report(f"{step.name}: {step.said}")
            rows = studio.ml.list(project=project.id)
            self.backend = next(row.id for row in rows if row.url == settings.backend_url)
            self.project = int(project.id)
        if own:  # the starter head knows shapes, not the person's classes
            Projects(settings.home / "projects").choose(self.project, assists=("refine",))

    @staticmethod
    def _disconnect(studio: Any, project: int, row: Any) -> None:
        studio.ml.delete(row.id)
        for hook in studio.webhooks.list(project=str(project)):
            if hook.url == f"{row.url}/webhook":
                studio.webhooks.delete(hook.id)

    def _import(self, studio: Any, project: int) -> None:
        storages = studio.import_storage.local.list(project=project)
        if not any(storage.path == str(self.folder) for storage in storages):
            studio.import_storage.local.create(project=project, path=str(self.folder), title="demo", use_blob_urls=True)
        there = {task.data["image"] for task in studio.tasks.list(project=project)}
        names = sorted(path.name for path in self.folder.iterdir() if is_picture(path.name))
        wanted = [f"/data/local-files/?d={self.folder.name}/{name}" for name in names]
        missing = [{"data": {"image": address}} for address in wanted if address not in there]
        if missing:
            studio.projects.import_tasks(id=project, request=missing)
            self._report(f"{len(missing)} tasks imported")
