"""Import and push against a real Label Studio: what the editor gets, that each comes once, and the undo."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from demo.stack import DemoStack
from tator_sdk.auth import LabelStudioAuth
from tator_sdk.bulk import open_bulk
from tator_sdk.import_undo import ImportUndo
from tator_sdk.importing import Importer
from tator_sdk.push import PredictionsOfVersion
from tator_sdk.requests import DataImport
from tator_sdk.studio import open_studio
from tests.formats.material import NAMES, folder, picture
from tests.importing.conftest import CONFIG, LINE, OUTLINE
from tests.push.material import prediction

pytestmark = [pytest.mark.studio, pytest.mark.timeout(300)]

VERSION = "head-1/relabel-1-real"


@pytest.fixture(scope="module")
def studio(stack: DemoStack) -> Any:
    return open_studio(stack.settings)


@pytest.fixture
def project(studio: Any) -> Iterator[int]:
    number = studio.projects.create(
        title="Data", label_config=CONFIG.replace('value="Bus"/>', 'value="Bus"/><Label value="Star"/>')
    ).id
    yield number
    studio.projects.delete(number)


def test_a_data_set_is_seen_comes_once_and_goes_again(stack: DemoStack, studio: Any, project: int) -> None:
    settings, files = stack.settings, stack.folder.parent
    names = [f"{number:02} å" for number in range(30)]
    root = folder(
        files / f"import-{project}",
        {"classes.txt": NAMES}
        | {f"images/{name}.png": "" for name in names}
        | {f"labels/{name}.txt": f"{LINE}\n{OUTLINE}\n" for name in names[:-1]},
    )
    studio.import_storage.local.create(project=project, path=str(root / "images"), title="set", use_blob_urls=True)
    request = DataImport(path=root, kind="yolo", project=project, local_files=files)
    done = Importer(request, settings).run()
    assert (done.created, done.empty, done.notes) == (30, 1, [])
    with open_bulk(settings) as api:
        tasks = list(api.tasks(project, "id", "data", "annotations", "result", "ground_truth", "total_annotations"))
    assert len(tasks) == 30 and [len(task["annotations"]) for task in tasks] == [1] * 29 + [0]
    first = tasks[0]["annotations"][0]
    assert [item["type"] for item in first["result"]] == ["rectanglelabels", "polygonlabels"]
    assert first["ground_truth"] is False
    url, token = settings.label_studio_url, settings.label_studio_api_key.get_secret_value()  # type: ignore[union-attr]
    served = httpx.get(url + tasks[0]["data"]["image"], auth=LabelStudioAuth(url, token))
    assert served.content == picture()

    again = Importer(request, settings).run()
    assert (again.created, again.there, again.id) == (0, 30, done.id)
    matched = Importer(request.model_copy(update={"local_files": None, "match": True}), settings).run()
    twice = Importer(request.model_copy(update={"local_files": None, "match": True}), settings).run()
    assert (matched.created, twice.created, twice.there) == (29, 0, 29)
    undo = ImportUndo(settings, matched.id)
    assert len(undo.delete(undo.find()).annotations) == 29

    studio.annotations.create(tasks[3]["id"], result=first["result"])
    undo = ImportUndo(settings, done.id)
    undone = undo.delete(undo.find())
    assert undone.kept == [tasks[3]["id"]] and len(undone.tasks) == 29
    assert [task.id for task in studio.tasks.list(project=project)] == undone.kept


def test_uploaded_pictures_go_with_their_tasks(stack: DemoStack, studio: Any, project: int) -> None:
    names = [f"p{number}" for number in range(5)]
    root = folder(
        stack.settings.home / f"upload-{project}",
        {"classes.txt": NAMES} | {f"images/{name}.png": "" for name in names},
    )
    request = DataImport(path=root, kind="yolo", project=project)
    done = Importer(request, stack.settings).run()
    with open_bulk(stack.settings) as api:
        assert len(api.get(f"/api/projects/{project}/file-uploads", all="true")) == 5
        undo = ImportUndo(stack.settings, done.id)
        assert len(undo.delete(undo.find()).tasks) == 5
        assert api.get(f"/api/projects/{project}/file-uploads", all="true") == []


WORKER = """
import os, signal, sys
from tests.push.material import prediction
from tator_sdk.push import PredictionsOfVersion
from tator_sdk.settings import Settings

passed = []
def moments(now):
    passed.append(now)
    if passed.count("sent") == 2:
        os.kill(os.getpid(), signal.SIGKILL)

tasks = list(map(int, sys.argv[3:]))
target = PredictionsOfVersion(Settings(_env_file=None), int(sys.argv[1]), sys.argv[2], moments, together=20)
target.push(tasks, prediction, lambda done: None)
"""


def test_a_worker_that_is_killed_leaves_each_prediction_once(stack: DemoStack, studio: Any, project: int) -> None:
    data = [{"data": {"image": f"/data/local-files/?d={number}.png"}} for number in range(60)]
    tasks = studio.projects.import_tasks(id=project, request=data, return_task_ids=True).task_ids
    other = studio.predictions.create(task=tasks[0], model_version="other", **prediction(tasks[0])).id
    command = [sys.executable, "-c", WORKER, str(project), VERSION, *map(str, tasks)]
    killed = subprocess.run(command, env={**os.environ, **stack.settings.environment()})
    assert killed.returncode == -signal.SIGKILL
    pushed = PredictionsOfVersion(stack.settings, project, VERSION).push(tasks, prediction, lambda done: None)
    assert (pushed.created, pushed.there, pushed.doubles) in {(40, 20, 0), (20, 40, 0)}
    held = list(studio.predictions.list(project=project))
    assert Counter(one.task for one in held if one.model_version == VERSION) == Counter(tasks)
    assert [one.id for one in held if one.model_version != VERSION] == [other]
    unknown = PredictionsOfVersion(stack.settings, project, "unknown").push(
        tasks[:2], lambda task: prediction(task, label="Nobody"), lambda done: None
    )
    assert unknown.created == 0 and "Nobody" in unknown.reasons[tasks[0]]
