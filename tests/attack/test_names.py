"""No name leads out of the folder that it names something in: versions, jobs, uploads, pictures, files of data sets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
from pydantic import ValidationError
from werkzeug.exceptions import NotFound

from tator_ml.engine.crops import CropRecipe
from tator_ml.engine.head import Head
from tator_ml.images.store import ImageStore
from tator_ml.jobs.records import JobRecord
from tator_ml.learning.stores import head_registry
from tator_ml.sam3.files import Sam3Error, find_files
from tator_ml.sam3.registry import sam3_registry
from tator_ml.vlm.registry import qwen_registry
from tator_ml.web.access import Visitor
from tator_ml.web.dashboard.data.uploads import Uploads
from tator_ml.web.dashboard.jobs.results import files_of
from tator_sdk.data_requests import Undo
from tator_sdk.datasets import DatasetRegistry
from tator_sdk.downloads import PictureSource
from tator_sdk.errors import TatorError
from tator_sdk.formats.writing import safe_name
from tator_sdk.images import ImageError
from tator_sdk.settings import Settings
from tests.dashboard.conftest import Site

from .hostile import NAMES

pytestmark = pytest.mark.attack  # together they take their time
SECRET = "nobody may read this"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with secrets around everything that has names."""
    for folder in (tmp_path, tmp_path / "heads", tmp_path / "uploads", tmp_path / "jobs", tmp_path / "datasets"):
        folder.mkdir(exist_ok=True)
        (folder / "secret").write_text(SECRET)
        (folder / "secret.json").write_text(json.dumps({"secret": SECRET}))
    return tmp_path


def head() -> Head:
    return Head(("Car",), np.eye(1, dtype=np.float32), np.zeros(1, np.float32), 1.0, 0.5, 0.1, "s", CropRecipe(), "h")


@pytest.mark.parametrize("name", NAMES)
def test_no_name_is_a_path(home: Path, name: str) -> None:
    settings = Settings(home=home)
    head_registry(settings).add(head(), 1, {})
    registries: list[Any] = [qwen_registry(settings), sam3_registry(settings)]
    if name:  # every name begins with none
        with pytest.raises(TatorError):
            head_registry(settings).get(name)
        with pytest.raises(TatorError):
            DatasetRegistry(home).get(name)
    for registry in registries:
        with pytest.raises(TatorError):
            registry.entry(name)
    with pytest.raises(Sam3Error):
        find_files(settings, f"sam3-{name}")
    with pytest.raises(NotFound):
        Uploads(settings).get(name, Visitor("administrator"))
    Uploads(settings).throw_away(name)
    assert ImageStore(home / "images", 10**6).get(name) is None
    with pytest.raises(ValidationError):
        Undo(of=f"import-{name}/", project=1)
    assert (home / "uploads" / "secret").exists() and (home / "secret").exists()


@pytest.mark.parametrize("name", NAMES)
def test_files_are_named_by_us(tmp_path: Path, name: str) -> None:
    made = safe_name(name)
    assert made and Path(made).name == made and made not in {".", ".."} and not set(made) & set("/\\\0:\n")
    assert len(made.encode()) <= 255 and (tmp_path / f"{made}.txt").resolve().parent == tmp_path.resolve()
    (tmp_path / f"{made[:200]}.txt").touch()


@pytest.mark.parametrize("job", ["..", "../..", "a/..", "/", ""])
def test_a_job_of_a_strange_id_has_no_files(home: Path, job: str) -> None:
    (home / "jobs" / "report.json").write_text(SECRET)
    record = JobRecord(**dict.fromkeys(JobRecord.__dataclass_fields__) | {"id": job})
    assert files_of(Settings(home=home), record) == ()


def test_a_link_in_a_jobs_folder_is_no_file(home: Path) -> None:
    (home / "jobs" / "clip-1-abcd").mkdir()
    (home / "jobs" / "clip-1-abcd" / "report.json").symlink_to(home / "secret.json")
    record = JobRecord(**dict.fromkeys(JobRecord.__dataclass_fields__) | {"id": "clip-1-abcd"})
    assert files_of(Settings(home=home), record) == ()


def test_no_address_of_a_page_reads_a_file(site: Site) -> None:
    (site.settings.home / "secret.json").write_text(json.dumps({"secret": SECRET}))
    patterns = (
        "/tator/data/set/{}", "/tator/data/set/{}/download", "/tator/data/import/{}", "/tator/data/set/a/sample/{}",
        "/tator/jobs/{}", "/tator/jobs/{}/log.txt", "/tator/jobs/clip-1/files/{}", "/tator/now/picture/{}",
        "/tator/models/head/{}", "/tator/models/qwen/{}/download", "/tator/models/{}/x", "/tator/static/{}",
        "/tator/api/jobs/{}", "/static/{}",
    )  # fmt: skip
    for pattern in patterns:
        for name in (*NAMES, "../../../../secret.json", "....//secret.json"):
            for coded in {quote(name.encode(errors="replace"), safe=""), quote(name.encode(errors="replace"))}:
                answer = site.client.get(pattern.format(coded))
                assert answer.status_code in {200, 302, 308, 400, 403, 404, 405}, (pattern, name, answer.status_code)
                assert SECRET not in answer.text and "root:" not in answer.text, (pattern, name)


PATHS = ("{root}/../secret", "{root}/%2e%2e/secret", "{root}/link", "{root}/sub/../../secret", "file://{root}/../secret",
         "{root}/device", "file:///proc/self/environ", "{root}/a\x00.png", "//{root}/../secret", "{root}")  # fmt: skip


@pytest.mark.parametrize("address", PATHS)
def test_allowed_folders_hold_no_way_out(tmp_path: Path, address: str) -> None:
    root = tmp_path / "pictures"
    (root / "sub").mkdir(parents=True)
    (tmp_path / "secret").write_text(SECRET)
    (root / "link").symlink_to(tmp_path / "secret")
    (root / "device").symlink_to("/dev/zero")
    (root / "mine.png").write_bytes(b"mine")
    source = PictureSource(Settings(home=tmp_path, image_roots=(root,), label_studio_url="http://127.0.0.1:9"))
    assert source.read(f"{root}/mine.png").data == b"mine"
    with pytest.raises(ImageError) as refused:
        source.read(address.format(root=root))
    assert SECRET not in str(refused.value)
    source.close()


def test_a_pipe_in_an_allowed_folder_holds_nobody_up(tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "pipe.png")
    source = PictureSource(Settings(home=tmp_path, image_roots=(tmp_path,), label_studio_url="http://127.0.0.1:9"))
    with pytest.raises(ImageError):
        source.read(str(tmp_path / "pipe.png"))
    source.close()
