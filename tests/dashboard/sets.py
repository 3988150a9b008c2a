"""Archives that are sent to the Data pages, and what was made of them."""

from __future__ import annotations

import io
import time
import zipfile
from typing import Any

from flask import g
from PIL import Image

from tator_ml.jobs import JobRecord, JobRecords
from tator_ml.web.access import Visitor
from tator_sdk.datasets import DatasetRecord, DatasetRegistry
from tator_sdk.looking import Look

from .conftest import Site

Files = dict[str, bytes | str]


def picture(shade: int = 90, size_wh: tuple[int, int] = (64, 48)) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", size_wh, (shade, 90, 60)).save(stream, "PNG")
    return stream.getvalue()


def yolo(pictures: int = 2, **more: bytes | str) -> Files:
    files: Files = {"data.yaml": "train: images/train\nval: images/val\nnames: [Car, Bus]\n"}
    for number in range(pictures):
        files[f"images/train/{number}.png"] = picture(number)
        files[f"labels/train/{number}.txt"] = "0 0.5 0.5 0.5 0.5\n1 0.1 0.1 0.1 0.1\n"
    return {**files, "images/val/9.png": picture(9), **more}


def zipped(files: Files) -> io.BytesIO:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    stream.seek(0)
    return stream


def send(site: Site, archive: io.BytesIO, name: str = "cars.zip", project: str = "", **headers: str) -> Any:
    form = {"csrf_token": "x", "project": project, "file": (archive, name)}
    return site.client.post("/tator/data/import", data=form, headers=headers)


def looked(site: Site, answer: Any) -> tuple[str, Look]:
    """The address of an upload and what was found in it, once the errand is through."""
    assert answer.status_code == 302, answer.text
    address = str(answer.location)
    folder = site.settings.home / "uploads" / address.rsplit("/", 1)[1]
    deadline = time.monotonic() + 30
    while (look := Look.read(folder)) is None:
        assert time.monotonic() < deadline, "nobody looked at it"
        time.sleep(0.05)
    return address, look


def see_only(site: Site, *projects: int, name: str = "ann@example.com") -> None:
    """Whoever asks from now on may see these projects."""
    before = site.client.application.before_request_funcs[None]
    before.append(lambda: setattr(g, "visitor", Visitor(name, frozenset(projects))))


def registered(site: Site, name: str, **source: Any) -> DatasetRecord:
    folder = site.settings.home / "sets" / name
    zipfile.ZipFile(zipped(yolo())).extractall(folder)
    return DatasetRegistry(site.settings.home).register(folder, source=source)


def newest(site: Site) -> JobRecord:
    return JobRecords(site.connection).list(limit=1)[0]
