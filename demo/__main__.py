"""``make demo``: Label Studio with a connected project, on this machine, in one command.

With ``--check`` it sends prompts through Label Studio's own API instead of waiting for a person,
prints what came back as JSON lines, stops everything, and exits with 0 only if the answers are right.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
from pydantic import SecretStr
from rich.console import Console

from demo import pictures
from demo.check import Checker, verdict
from demo.label_studio import ENVIRONMENT, LabelStudio, StudioSettings, ensure_environment
from label_config.build import build
from tator_ml.processes import Supervisor, termination_as_exit
from tator_ml.projects import ProjectChoices, Projects
from tator_ml.up import start_back, start_front
from tator_sdk.auth import LabelStudioAuth
from tator_sdk.connect import TITLE, Connection, strip_url
from tator_sdk.errors import TatorError
from tator_sdk.settings import Settings
from tator_sdk.studio import open_studio, sentences

PROJECT = "Tator demo"
OWN_PROJECT = "Tator demo, own pictures"
HOME = Path(os.environ.get("TATOR_HOME") or Path(__file__).parents[1] / ".tator")


def main() -> int:
    options = _options()
    console = Console(stderr=options.check)  # with --check standard output holds JSON alone
    begun = time.monotonic()

    def report(said: str) -> None:
        console.print(f"[dim]{time.monotonic() - begun:5.1f} s[/]  {said}", highlight=False)

    try:
        with termination_as_exit(), ExitStack() as stack:
            return Demo(options, console, report, stack).run()
    except KeyboardInterrupt:
        console.print("stopped")
        return 130
    except TatorError as error:
        console.print(f"[bold red]demo:[/] {error}", highlight=False)
        return 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--check", action="store_true", help="send prompts, print the answers, stop")
    parser.add_argument("--images", type=Path, help="folder of your own pictures instead of generated scenes")
    parser.add_argument("--classes", default="Object", help="with --images: class names, separated by commas")
    options = parser.parse_args()
    if options.images is not None and options.check:
        parser.error("--check knows the truth of the generated scenes only: leave --images out")
    if options.images is not None and not options.images.is_dir():
        parser.error(f"{options.images} is not a folder")
    return options


class Demo:
    """One run of the demo; what it starts is stopped when ``stack`` closes."""

    def __init__(self, options: argparse.Namespace, console: Console, report: Any, stack: ExitStack) -> None:
        self._options = options
        self._console = console
        self._report = report
        self._stack = stack
        self._files = HOME / "demo-files"
        self._folder = self._files / ("own" if options.images else "scenes")

    def run(self) -> int:
        """Start everything, connect, then wait or check."""
        ensure_environment(ENVIRONMENT, self._report)
        self._make_pictures()
        studio = self._stack.enter_context(_Stopped(LabelStudio(self._studio_settings())))
        parts = self._stack.enter_context(Supervisor(HOME, self._report))
        with ThreadPoolExecutor(1) as pool:  # Label Studio and Tator start side by side
            starting = pool.submit(studio.start, self._report)
            try:
                settings = self._settings()
                start_back(settings, parts)
            finally:
                starting.result()
        self._report(f"Label Studio is ready at {studio.url}")
        access = {"label_studio_url": studio.url, "label_studio_api_key": SecretStr(studio.account.token)}
        settings = start_front(settings.model_copy(update=access), parts)
        project, backend = self._connect(settings)
        if self._options.check:
            return self._check(studio, settings, project, backend)
        self._explain(studio, project)
        parts.watch()
        return 0

    def _make_pictures(self) -> None:
        source = self._options.images
        made = pictures.copy_own(source, self._folder) if source else pictures.draw_scenes(self._folder)
        count = 0
        for count in made:  # noqa: B007
            pass
        if not count:
            raise TatorError(f"There are no pictures in {source}.")
        self._report(f"{count} pictures in {self._folder}")

    def _studio_settings(self) -> StudioSettings:
        return StudioSettings(home=HOME / "label-studio", document_root=self._files)

    def _settings(self) -> Settings:
        settings = Settings(home=HOME)
        if self._options.images and "TATOR_SEGMENTER" not in os.environ:
            settings = settings.model_copy(update={"segmenter": self._real_segmenter(settings)})
        return settings

    def _real_segmenter(self, settings: Settings) -> str:
        """Weights for photographs where a hub can be reached; the starter's, with a word about it, where not."""
        from tator_ml.engine.segmenters.weights import WeightsMissing, resolve

        try:
            self._report("looking for MobileSAM's weights (40 MB) on the hub")
            resolve("mobile_sam", None, settings.weights_dir, settings.offline)
            return "mobile_sam"
        except WeightsMissing as error:
            self._report(f"{error} Going on with the starter weights, which are not made for photographs.")
            return "starter"

    def _connect(self, settings: Settings) -> tuple[int, int]:
        """Project, tasks and connection: whatever is missing is made, nothing is doubled."""
        studio = open_studio(settings)
        own = self._options.images is not None
        title = OWN_PROJECT if own else PROJECT
        classes = [name.strip() for name in self._options.classes.split(",")] if own else pictures.classes()
        with sentences(settings.label_studio_url):
            found = [project for project in studio.projects.list() if project.title == title]
            project = found[0] if found else studio.projects.create(title=title, label_config="<View/>")
            url = strip_url(settings, settings.backend_url, project.id)
            config = build("all" if own else "boxes", classes, url, project=project.id)
            if project.label_config != config:
                studio.projects.update(project.id, label_config=config)
            self._import(studio, project.id)
            for step in Connection(settings, project.id, settings.backend_url).run():
                self._report(f"{step.name}: {step.said}")
            rows = studio.ml.list(project=project.id)
            for row in rows:  # an earlier run may have had another port
                if row.title == TITLE and row.url != settings.backend_url:
                    studio.ml.delete(row.id)
            backend = next(row.id for row in rows if row.url == settings.backend_url)
        if own:  # the starter head knows shapes, not the person's classes
            Projects(settings.home / "projects").set(project.id, ProjectChoices(("refine",)))
        return int(project.id), int(backend)

    def _import(self, studio: Any, project: int) -> None:
        storages = studio.import_storage.local.list(project=project)
        if not any(storage.path == str(self._folder) for storage in storages):
            studio.import_storage.local.create(
                project=project, path=str(self._folder), title="demo", use_blob_urls=True
            )
        there = {task.data["image"] for task in studio.tasks.list(project=project)}
        names = sorted(path.name for path in self._folder.iterdir() if path.suffix.lower() in pictures.SUFFIXES)
        wanted = [f"/data/local-files/?d={self._folder.name}/{name}" for name in names]
        missing = [{"data": {"image": address}} for address in wanted if address not in there]
        if missing:
            studio.projects.import_tasks(id=project, request=missing)
            self._report(f"{len(missing)} tasks imported")

    def _check(self, studio: LabelStudio, settings: Settings, project: int, backend: int) -> int:
        auth = LabelStudioAuth(studio.url, studio.account.token)
        with httpx.Client(base_url=studio.url, auth=auth, timeout=120, trust_env=False) as client:
            tasks = client.get("/api/tasks", params={"project": project, "page_size": 100}).json()["tasks"]
            tasks.sort(key=lambda task: str(task["data"]["image"]))
            checker = Checker(client, backend, settings.backend_url, project)
            shots = []
            for shot in checker.shots(tasks, self._folder):
                shots.append(shot)
                print(shot.line(), flush=True)
        good, summary = verdict(shots)
        print(json.dumps(summary), flush=True)
        return 0 if good else 1

    def _explain(self, studio: LabelStudio, project: int) -> None:
        account = studio.account
        self._console.print(
            f"""
[bold green]The demo is ready.[/] Ctrl-C stops everything.

  Address   {studio.url}/projects/{project}/data
  Login     {account.username}
  Password  {account.password}

Three things to try, with Auto-Annotation switched on in the bar below the picture:
  1. Press a label's number, click an object: it becomes a box with its class.
  2. Press alt and the number, draw a loose box: it snaps to the object.
  3. Two objects taken for one? Pick the label again and Alt-click the one that does not belong.
""",
            highlight=False,
            soft_wrap=True,
        )


class _Stopped:
    """Stops a Label Studio that is started later, in a thread."""

    def __init__(self, studio: LabelStudio) -> None:
        self._studio = studio

    def __enter__(self) -> LabelStudio:
        return self._studio

    def __exit__(self, *_: object) -> None:
        self._studio.stop()


if __name__ == "__main__":
    sys.exit(main())
