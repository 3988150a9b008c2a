"""Where Label Studio finds the pictures of a data set: below its local files, under a prefix, or uploaded to it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol
from urllib.parse import parse_qs, quote, unquote, urlsplit

from tator_sdk.bulk import BulkApi
from tator_sdk.errors import TatorError
from tator_sdk.formats.dataset import LabelledPicture
from tator_sdk.patience import patiently

HASHED_CHUNK = 1 << 20
_UPLOAD = re.compile(r"(?:^|/)data/upload/\d+/[0-9a-f]{8}-([^/]+)$")


def address_name(address: str) -> str:
    """The name of the file behind a picture's address, as Label Studio has it; empty where there is none."""
    return _path_of(address).rpartition("/")[2]


def names_of_address(address: str) -> set[str]:
    """Names that people may know a picture by: its file's, and an upload's before it got eight digits in front."""
    path = _path_of(address)
    uploaded = _UPLOAD.search(path)
    return {name for name in (path.rpartition("/")[2], uploaded[1] if uploaded else "") if name}


def _path_of(address: str) -> str:
    if address.startswith("data:"):
        return ""
    parts = urlsplit(address)
    asked = parse_qs(parts.query)
    named = "d" if parts.path.endswith("/local-files/") else "fileuri"
    return asked[named][0] if named in asked else unquote(parts.path)


@dataclass(frozen=True)
class Place:
    """Where a picture is.

    Attributes:
        address: as it goes into a task's data.
        upload: number of the uploaded file; None where nothing was uploaded.
    """

    address: str
    upload: int | None = None


class Addresses(Protocol):
    """Gives pictures their addresses."""

    def key(self, picture: LabelledPicture) -> str:
        """What tells the picture from all others of a project, the same at every run.

        Raises:
            TatorError: it cannot be referred to.
        """

    def places(self, pictures: Sequence[LabelledPicture]) -> Iterator[list[Place]]:
        """Where they are, in their order; made so where need be, and given as soon as that is done."""


class LocalFiles:
    """Pictures below the folder that Label Studio serves as local files; nothing but records travels."""

    def __init__(self, document_root: Path) -> None:
        self._root = document_root.resolve()
        self._folders: dict[Path, str] = {}

    def key(self, picture: LabelledPicture) -> str:
        """The address."""
        folder = picture.path.parent
        if folder not in self._folders:  # resolving asks the disk about each folder above
            real = folder.resolve()
            if not real.is_relative_to(self._root):
                raise TatorError(
                    f"{real} lies outside of {self._root}, so Label Studio cannot serve it as local files."
                )
            self._folders[folder] = quote((real.relative_to(self._root) / "x").as_posix()[:-1])
        return f"/data/local-files/?d={self._folders[folder]}{quote(picture.path.name)}"

    def places(self, pictures: Sequence[LabelledPicture]) -> Iterator[list[Place]]:
        """Their addresses."""
        yield [Place(self.key(picture)) for picture in pictures]


class UrlPrefix:
    """Pictures that a web server has, under the names that the data set gives them."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix.rstrip("/")

    def key(self, picture: LabelledPicture) -> str:
        """The address."""
        return f"{self._prefix}/{quote(picture.name)}"

    def places(self, pictures: Sequence[LabelledPicture]) -> Iterator[list[Place]]:
        """Their addresses."""
        yield [Place(self.key(picture)) for picture in pictures]


class Uploaded:
    """Pictures that are uploaded to Label Studio, known again by name and content."""

    MOST_FILES = 50  # of one request; Label Studio takes 100
    MOST_BYTES = 64 * 2**20

    def __init__(self, api: BulkApi, project: int) -> None:
        self._api = api
        self._project = project

    def key(self, picture: LabelledPicture) -> str:
        """Its name with a hash of its content: Label Studio gives a file another address at each upload."""
        digest = hashlib.sha256()
        with picture.path.open("rb") as file:
            while chunk := file.read(HASHED_CHUNK):
                digest.update(chunk)
        return f"sha256:{digest.hexdigest()[:32]}/{picture.name}"

    def places(self, pictures: Sequence[LabelledPicture]) -> Iterator[list[Place]]:
        """Upload them, some at a time; what was uploaded is not uploaded again where a later request fails.

        Raises:
            StudioError: Label Studio refuses, or does not answer for three quarters of a minute.
        """
        waiting: list[tuple[str, bytes]] = []
        size = 0
        for picture in pictures:
            content = picture.path.read_bytes()
            if waiting and (len(waiting) == self.MOST_FILES or size + len(content) > self.MOST_BYTES):
                yield self._upload(waiting)
                waiting, size = [], 0
            waiting.append((picture.path.name, content))
            size += len(content)
        if waiting:
            yield self._upload(waiting)

    def _upload(self, files: Sequence[tuple[str, bytes]]) -> list[Place]:
        path = f"/api/projects/{self._project}"
        sent = partial(self._api.upload, f"{path}/import", files, {"commit_to_project": "false"})
        numbers = [int(number) for number in patiently(sent, path)["file_upload_ids"]]
        rows = patiently(partial(self._api.get, f"{path}/file-uploads", ids=json.dumps(numbers)), path)
        names = {int(row["id"]): str(row["file"]) for row in rows}
        return [Place(f"/data/{names[number]}", number) for number in numbers]
