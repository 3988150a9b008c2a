"""Addresses in tasks → the bytes of pictures.

Pictures come from Label Studio, from hosts and folders that the settings allow, and from ``data:``
addresses; from nowhere else. No redirect leaves the host it began at.
"""

from __future__ import annotations

import base64
import binascii
import functools
import posixpath
import ssl
import time
from dataclasses import dataclass
from http.cookiejar import CookieJar, DefaultCookiePolicy
from pathlib import Path
from urllib.parse import SplitResult, quote, unquote, urljoin, urlsplit

import httpx

from tator_sdk.auth import LabelStudioAuth
from tator_sdk.images import ImageError
from tator_sdk.plain_text import on_one_line
from tator_sdk.settings import Settings

CLOUD_SCHEMES = {"s3", "gs", "azure-blob", "gcs"}
REDIRECTS = 3


@dataclass(frozen=True)
class Download:
    """A picture file.

    Attributes:
        data: its bytes; None where the server says that it is the one whose ``etag`` or ``modified`` was given.
        etag: the server's name for this content.
        modified: when it was last changed, as the server writes it.
    """

    data: bytes | None
    etag: str | None = None
    modified: str | None = None


@functools.cache
def trusted() -> ssl.SSLContext:
    """The certificates that are trusted, read once: each client would read them anew, a twentieth of a second."""
    return httpx.create_ssl_context()


class PictureSource:
    """Reads pictures with limits on time and bytes; used by several threads at once."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        key = settings.label_studio_api_key
        auth = LabelStudioAuth(settings.label_studio_url, key.get_secret_value()) if key else None
        self._client = httpx.Client(
            auth=auth,
            verify=trusted(),
            timeout=httpx.Timeout(settings.image_timeout_seconds),
            follow_redirects=False,
            # Label Studio answers every request with a session, which must not become the next one's identity
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
        )

    def close(self) -> None:
        """Close connections."""
        self._client.close()

    def read(
        self, address: str, task_id: int | None = None, etag: str | None = None, modified: str | None = None
    ) -> Download:
        """The picture of an address.

        Args:
            address: what the task holds: a path on Label Studio, an URL, ``data:``, or a cloud address.
            task_id: needed to let Label Studio sign cloud addresses.
            etag: of the content that is known already.
            modified: its date, likewise.

        Raises:
            ImageError: not allowed, not found, too slow, or too large.
        """
        if address.startswith("data:"):
            return Download(_decode_data_url(address, self._settings.image_max_bytes))
        parts = _split(address)
        if parts.scheme in {"", "file"}:
            local = self._local_file(unquote(parts.path)) if address[:6] != "/data/" else None
            if local is not None:
                return Download(local)
            if parts.scheme == "file":
                raise ImageError(f"Reading {address} is not allowed; add its folder to TATOR_IMAGE_ROOTS.")
        if parts.scheme in CLOUD_SCHEMES:
            if task_id is None:
                raise ImageError(f"The cloud address {address} needs a task to be signed by Label Studio.")
            coded = quote(base64.b64encode(address.encode()).decode())
            address = f"/tasks/{task_id}/presign/?fileuri={coded}"
        url = _joined(self._settings.label_studio_url + "/", address)
        # Label Studio sends no length with a whole file, so a cut transfer would look complete; a range has one.
        headers = {"Range": "bytes=0-"}
        if etag:
            headers["If-None-Match"] = etag
        elif modified:
            headers["If-Modified-Since"] = modified
        return self._download(url, headers, signed=parts.scheme in CLOUD_SCHEMES)

    def _allowed(self, url: str) -> bool:
        # read by what sends the request: two readers of one address may find two hosts in it
        asked = _url(url)
        if asked.scheme not in {"http", "https"}:
            return False
        if self._is_own(asked):  # whose token would ask its API for whoever can edit a task
            path = posixpath.normpath("/" + unquote(asked.path).lstrip("/"))
            return not f"{path}/".startswith("/api/")
        return asked.host in self._settings.image_hosts

    def _is_own(self, asked: httpx.URL) -> bool:
        own = _url(self._settings.label_studio_url)
        return (asked.scheme, asked.host, asked.port, asked.userinfo) == (own.scheme, own.host, own.port, own.userinfo)

    def _download(self, url: str, headers: dict[str, str], signed: bool) -> Download:
        asks = not headers.keys().isdisjoint({"If-None-Match", "If-Modified-Since"})
        deadline = time.monotonic() + self._settings.image_timeout_seconds
        for hop in range(REDIRECTS + 1):
            # Label Studio itself names the signed address of a cloud file, so one hop from there is trusted.
            if not self._allowed(url) and not (signed and hop == 1):
                raise ImageError(self._not_allowed(url))
            try:
                with self._client.stream("GET", url, headers=headers) as response:
                    if response.is_redirect and "location" in response.headers:
                        url = _joined(url, response.headers["location"])
                        continue
                    if response.status_code == 304 and asks:
                        return Download(None)
                    self._refuse(response, url)
                    data = self._body(response, deadline)
                    return Download(data, response.headers.get("etag"), response.headers.get("last-modified"))
            except httpx.TimeoutException as error:
                raise self._too_slow(url) from error
            except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:  # the latter of a redirect
                raise ImageError(f"{_host(url)} cannot be reached for the picture ({error}).") from error
        raise ImageError(f"The picture's address at {_host(url)} redirects too often.")

    def _not_allowed(self, url: str) -> str:
        asked = _url(url)
        if self._is_own(asked):
            return f"{on_one_line(url)[:200]} is no address of a picture in Label Studio."
        return f"Pictures from {asked.host or 'such an address'} are not allowed; add it to TATOR_IMAGE_HOSTS."

    def _refuse(self, response: httpx.Response, url: str) -> None:
        status = response.status_code
        if status in {401, 403}:
            raise ImageError(
                f"{_host(url)} refuses the picture ({status}); check the Label Studio token with `tator doctor`."
            )
        if status == 404:
            raise ImageError(f"The picture is not there any more (404 from {_host(url)}).")
        if status == 500 and "/data/upload/" in url:
            raise ImageError(f"{_host(url)} does not have the uploaded picture any more (500).")
        if status >= 400:
            raise ImageError(f"{_host(url)} answers {status} instead of the picture.")

    def _body(self, response: httpx.Response, deadline: float) -> bytes:
        chunks, total = [], 0
        for chunk in response.iter_bytes(1 << 16):
            total += len(chunk)
            if total > self._settings.image_max_bytes:
                raise ImageError(
                    f"The picture's file is larger than {self._settings.image_max_bytes} bytes; "
                    "raise TATOR_IMAGE_MAX_BYTES."
                )
            if time.monotonic() > deadline:  # a server that drips must not hold the click
                raise self._too_slow(str(response.url))
            chunks.append(chunk)
        wanted = response.headers.get("content-range", "").rpartition("/")[2]
        if wanted.isdecimal() and len(wanted) < 20 and int(wanted) != total:
            raise ImageError(f"{_host(str(response.url))} broke off in the middle of the picture; try again.")
        return b"".join(chunks)

    def _too_slow(self, url: str) -> ImageError:
        seconds = self._settings.image_timeout_seconds
        return ImageError(f"{_host(url)} did not send the picture within {seconds:g} s.")

    def _local_file(self, path: str) -> bytes | None:
        """The file's bytes when it lies under an allowed root, else None."""
        try:
            real = Path(path).resolve(strict=True)
        except (OSError, ValueError):  # a byte that no path has
            return None
        roots = [root.resolve() for root in self._settings.image_roots]
        if not real.is_file() or not any(real.is_relative_to(root) for root in roots):
            return None
        if real.stat().st_size > self._settings.image_max_bytes:
            raise ImageError("The picture's file is too large; raise TATOR_IMAGE_MAX_BYTES.")
        return real.read_bytes()


def _split(address: str) -> SplitResult:
    try:
        return urlsplit(address)
    except ValueError as error:
        raise ImageError("The picture's address cannot be read; correct it in the task's data.") from error


def _joined(base: str, address: str) -> str:
    try:
        return urljoin(base, address)
    except ValueError as error:
        raise ImageError("The picture's address cannot be read; correct it in the task's data.") from error


def _url(address: str) -> httpx.URL:
    try:
        return httpx.URL(address)
    except (httpx.InvalidURL, UnicodeError) as error:
        raise ImageError("The picture's address cannot be read; correct it in the task's data.") from error


def _host(url: str) -> str:
    return urlsplit(url).hostname or "the server"


def _decode_data_url(address: str, max_bytes: int) -> bytes:
    header, _, body = address.partition(",")
    if len(body) > max_bytes * 4 / 3 + 4:
        raise ImageError("The picture in the task is too large; raise TATOR_IMAGE_MAX_BYTES.")
    if not header.endswith(";base64"):
        raise ImageError("The picture in the task is not base64-encoded.")
    try:
        return base64.b64decode(body, validate=True)
    except binascii.Error as error:
        raise ImageError("The picture in the task is damaged.") from error
