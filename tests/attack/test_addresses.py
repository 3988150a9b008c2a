"""Pictures' addresses: no other host is asked, no file of this machine read, the token goes to Label Studio alone."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tator_sdk.downloads import PictureSource
from tator_sdk.images import ImageError
from tator_sdk.settings import Settings
from tests.wire.conftest import PictureServer, Running, click, pictures, running, scene_bytes, settings

pytestmark = pytest.mark.attack  # together they take their time
__all__ = ["click", "pictures", "running", "settings"]

STUDIO = "http://studio.example:8080"
TOKEN = "token-that-must-not-leave"
ELSEWHERE = (
    "http://evil.example/x.png", "//evil.example/x.png", "http://studio.example:8081/x.png",
    "https://studio.example:8080/x.png", "http://studio.example:8080@evil.example/x.png",
    "http://evil.example#@studio.example:8080/x.png", "http://studio.example:8080\\@evil.example/",
    "http://allowed.example\\@evil.example/", "http://allowed.example%2eevil.example/", "http://evil.example?@allowed.example/",
    "http://allowed.example.evil.example/", "http://x.allowed.example/", "http://allowed.example\t.evil.example/",
    "http://169.254.169.254/latest/meta-data", "http://127.0.0.1:6379/", "http://localhost/", "http://[::1]/",
    "http://[::ffff:127.0.0.1]/", "http://2130706433/", "http://0x7f000001/", "http://0177.0.0.1/", "http://127.1/",
    "http://0/", "http://①②⑦.0.0.1/", "file:///etc/passwd", "FILE:///etc/passwd", "ftp://allowed.example/x",
    "gopher://allowed.example/", "jar:http://allowed.example!/", "dict://127.0.0.1:11211/", "javascript:alert(1)",
    "unix:///var/run/docker.sock", "http://", "http:///x", "http://[", "http://[::1", "\x00", "http://a b/",
    "/a\x00b.png", "/\ud800.png", "http://user:word@evil.example/x.png", " http://evil.example/", "data:text/html,<b>",
    "data:image/png;base64,####", "data:", "s3://bucket/../../x", "a" * 70_000,
)  # fmt: skip


class Asked:
    """What was asked of which host, instead of a network."""

    def __init__(self, redirects: dict[str, str] | None = None) -> None:
        self.requests: list[httpx.Request] = []
        self._redirects = redirects or {}

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        to = self._redirects.get(request.url.path)
        return (
            httpx.Response(302, headers=[(b"Location", to.encode())]) if to else httpx.Response(200, content=b"picture")
        )

    @property
    def hosts(self) -> set[str]:
        return {request.url.host for request in self.requests}

    @property
    def told(self) -> set[str]:
        """Hosts that got the token."""
        return {
            one.url.host
            for one in self.requests
            if TOKEN in one.headers.get("Authorization", "") + one.content.decode()
        }


@contextmanager
def source(tmp_path: Path, asked: Asked, token: str = TOKEN) -> Iterator[PictureSource]:
    settings = Settings(
        home=tmp_path, label_studio_url=STUDIO, label_studio_api_key=token, image_hosts=("allowed.example",)
    )
    made = PictureSource(settings)
    made._client._transport = httpx.MockTransport(asked)
    made._client._mounts = {}
    yield made
    made.close()


@pytest.mark.parametrize("address", ELSEWHERE)
def test_nobody_else_is_asked(tmp_path: Path, address: str) -> None:
    asked = Asked()
    with source(tmp_path, asked) as pictures_of:
        try:
            read = pictures_of.read(address).data
            assert read in (b"picture", b"")
        except ImageError as refused:
            assert "\n" not in str(refused) and len(str(refused)) < 1000
    assert asked.hosts <= {"studio.example", "allowed.example"} and asked.told <= {"studio.example"}
    for request in asked.requests:
        assert (request.url.scheme, request.url.port) in {("http", 8080), ("http", None)}


@pytest.mark.parametrize("to", [one for one in ELSEWHERE if "\x00" not in one and "\ud800" not in one])
def test_no_redirect_leads_elsewhere(tmp_path: Path, to: str) -> None:
    asked = Asked({"/data/upload/1/x.png": to.strip()})
    with source(tmp_path, asked) as pictures_of, pytest.raises(ImageError):
        pictures_of.read("/data/upload/1/x.png")
        raise ImageError("it stayed with Label Studio")
    assert asked.hosts <= {"studio.example", "allowed.example"} and asked.told <= {"studio.example"}


def test_the_token_stays_with_label_studio(tmp_path: Path) -> None:
    asked = Asked({"/data/upload/1/x.png": "http://allowed.example/x.png"})
    with source(tmp_path, asked) as pictures_of:
        assert pictures_of.read("/data/upload/1/x.png").data == b"picture"
    assert asked.hosts == {"studio.example", "allowed.example"} and asked.told == {"studio.example"}
    signed = Asked({"/tasks/5/presign/": "https://bucket.example/x.png?signature=1", "/x.png": "http://10.0.0.1/"})
    with source(tmp_path, signed) as pictures_of, pytest.raises(ImageError, match="not allowed"):
        pictures_of.read("s3://bucket/x.png", 5)  # one hop from there is Label Studio's word; no second one
    assert signed.hosts == {"studio.example", "bucket.example"} and signed.told == {"studio.example"}


def test_a_personal_access_token_is_exchanged_with_label_studio_alone(tmp_path: Path) -> None:
    asked = Asked()
    with source(tmp_path, asked, "a.b.c") as pictures_of:
        pictures_of.read("http://allowed.example/x.png")
    assert asked.hosts == {"allowed.example"} and "Authorization" not in asked.requests[0].headers


@pytest.mark.parametrize(
    "path",
    ["/api/users/", "/api/projects/1/export", "/data/../api/x", "/data/%2e%2e/api/x", "/API/../api/", "/x/..//api/y"],
)
def test_pictures_are_no_way_to_ask_the_api_with_the_backends_token(tmp_path: Path, path: str) -> None:
    for address in (path, STUDIO + path):
        asked = Asked()
        with source(tmp_path, asked) as pictures_of, pytest.raises(ImageError, match="no address of a picture"):
            pictures_of.read(address)
        assert not asked.requests


def test_an_allowed_name_is_what_the_administrator_vouches_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rebinding: names that nobody allowed are not even looked up, so that what they resolve to does not matter."""
    looked_up: list[Any] = []
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *_, **__: looked_up.append(host) or [])
    reader = PictureSource(Settings(home=tmp_path, label_studio_url=STUDIO, image_hosts=("allowed.example",)))
    with pytest.raises(ImageError):
        reader.read("http://rebound.evil.example/x.png")
    assert looked_up == []
    reader.close()


@pytest.mark.parametrize("address", ["http://[::1", "/a\x00b", "http://x\\y", "/\ud800", "http://①.②/"])
def test_an_annotator_reads_a_sentence_of_it(running: Running, click: Any, address: str) -> None:
    click["tasks"][0]["data"]["image"] = address
    (result,) = running.predict(click)
    said = running.error()
    assert result["result"] == [] and said and "unexpected" not in said and "\n" not in said


def test_the_wire_asks_nobody_either(running: Running, click: Any, pictures: PictureServer) -> None:
    pictures.answers["/picture"] = (302, b"http://[::1")
    running.predict(click)
    assert "cannot be reached" in (running.error() or "")
    pictures.answers["/picture"] = (200, scene_bytes())
    assert running.predict(click)[0]["result"] and running.error() is None
