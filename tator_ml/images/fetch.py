"""Addresses in tasks → picture files in the store.

Pictures come from Label Studio, from hosts and folders that the settings allow, and from ``data:``
addresses; from nowhere else. No redirect leaves the host it began at.
"""

from __future__ import annotations

import base64
import binascii
import logging
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from http.cookiejar import CookieJar, DefaultCookiePolicy
from pathlib import Path
from urllib.parse import quote, unquote, urljoin, urlsplit

import httpx

from tator_ml.images.decode import ImageError, image_size
from tator_ml.images.store import ImageStore
from tator_sdk.auth import LabelStudioAuth
from tator_sdk.settings import Settings

log = logging.getLogger(__name__)
CLOUD_SCHEMES = {"s3", "gs", "azure-blob", "gcs"}
REDIRECTS = 3


@dataclass(frozen=True)
class ImageRef:
    """A picture that lies in the store.

    Attributes:
        image: SHA-256 of the file, hex.
        size_wh: width and height with EXIF rotation applied.
    """

    image: str
    size_wh: tuple[int, int]


@dataclass(frozen=True)
class _Known:
    ref: ImageRef
    checked: float
    etag: str | None
    modified: str | None


class ImageFetcher:
    """Fetches pictures with limits on time, bytes and pixels, and remembers which address held which."""

    def __init__(self, settings: Settings, store: ImageStore) -> None:
        self._settings = settings
        self._store = store
        key = settings.label_studio_api_key
        auth = LabelStudioAuth(settings.label_studio_url, key.get_secret_value()) if key else None
        self._client = httpx.Client(
            auth=auth,
            timeout=httpx.Timeout(settings.image_timeout_seconds),
            follow_redirects=False,
            # Label Studio answers every request with a session, which must not become the next one's identity
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
        )
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._lock = threading.Lock()

    def fetch(self, address: str, task_id: int | None = None) -> ImageRef:
        """Bring the picture of an address into the store, unless it is known to be there.

        Args:
            address: what the task holds: a path on Label Studio, an URL, ``data:``, or a cloud address.
            task_id: needed to let Label Studio sign cloud addresses.

        Raises:
            ImageError: not allowed, not found, too slow, too large, or not a picture.
        """
        if address.startswith("data:"):
            return self._kept(_decode_data_url(address, self._settings.image_max_bytes)).ref
        with self._lock:
            known = self._known.get(address)
        fresh = known is not None and time.monotonic() - known.checked < self._settings.image_recheck_seconds
        if known is not None and known.ref.image in self._store:
            if fresh:
                return known.ref
        else:
            known = None
        found = self._read(address, task_id, known)
        with self._lock:
            self._known[address] = found
            self._known.move_to_end(address)
            while len(self._known) > 20_000:
                self._known.popitem(last=False)
        return found.ref

    def forget(self, ref: ImageRef) -> None:
        """Take no address to mean this picture any more: it proved damaged and may be mended."""
        with self._lock:
            for address in [one for one, known in self._known.items() if known.ref == ref]:
                del self._known[address]

    def close(self) -> None:
        """Close connections."""
        self._client.close()

    def _read(self, address: str, task_id: int | None, known: _Known | None) -> _Known:
        parts = urlsplit(address)
        if parts.scheme in {"", "file"}:
            local = self._local_file(unquote(parts.path)) if address[:6] != "/data/" else None
            if local is not None:
                return self._kept(local)
            if parts.scheme == "file":
                raise ImageError(f"Reading {address} is not allowed; add its folder to TATOR_IMAGE_ROOTS.")
        if parts.scheme in CLOUD_SCHEMES:
            if task_id is None:
                raise ImageError(f"The cloud address {address} needs a task to be signed by Label Studio.")
            coded = quote(base64.b64encode(address.encode()).decode())
            address = f"/tasks/{task_id}/presign/?fileuri={coded}"
        url = urljoin(self._settings.label_studio_url + "/", address)
        return self._download(url, known, signed=parts.scheme in CLOUD_SCHEMES)

    def _allowed(self, url: str) -> bool:
        parts, own = urlsplit(url), urlsplit(self._settings.label_studio_url)
        if parts.scheme not in {"http", "https"}:
            return False
        return parts[:2] == own[:2] or (parts.hostname or "") in self._settings.image_hosts

    def _download(self, url: str, known: _Known | None, signed: bool) -> _Known:
        # Label Studio sends no length with a whole file, so a cut transfer would look complete; a range has one.
        headers = {"Range": "bytes=0-"}
        if known and known.etag:
            headers["If-None-Match"] = known.etag
        elif known and known.modified:
            headers["If-Modified-Since"] = known.modified
        deadline = time.monotonic() + self._settings.image_timeout_seconds
        for hop in range(REDIRECTS + 1):
            # Label Studio itself names the signed address of a cloud file, so one hop from there is trusted.
            if not self._allowed(url) and not (signed and hop == 1):
                host = urlsplit(url).hostname
                raise ImageError(f"Pictures from {host} are not allowed; add it to TATOR_IMAGE_HOSTS.")
            try:
                with self._client.stream("GET", url, headers=headers) as response:
                    if response.is_redirect and "location" in response.headers:
                        url = urljoin(url, response.headers["location"])
                        continue
                    if response.status_code == 304 and known:
                        return _Known(known.ref, time.monotonic(), known.etag, known.modified)
                    self._refuse(response, url)
                    data = self._body(response, deadline)
                    return self._kept(data, response.headers.get("etag"), response.headers.get("last-modified"))
            except httpx.TimeoutException as error:
                raise self._too_slow(url) from error
            except httpx.HTTPError as error:
                raise ImageError(f"{_host(url)} cannot be reached for the picture ({error}).") from error
        raise ImageError(f"The picture's address at {_host(url)} redirects too often.")

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
        if wanted.isdigit() and int(wanted) != total:
            raise ImageError(f"{_host(str(response.url))} broke off in the middle of the picture; try again.")
        return b"".join(chunks)

    def _too_slow(self, url: str) -> ImageError:
        seconds = self._settings.image_timeout_seconds
        return ImageError(f"{_host(url)} did not send the picture within {seconds:g} s.")

    def _local_file(self, path: str) -> bytes | None:
        """The file's bytes when it lies under an allowed root, else None."""
        try:
            real = Path(path).resolve(strict=True)
        except OSError:
            return None
        roots = [root.resolve() for root in self._settings.image_roots]
        if not real.is_file() or not any(real.is_relative_to(root) for root in roots):
            return None
        if real.stat().st_size > self._settings.image_max_bytes:
            raise ImageError("The picture's file is too large; raise TATOR_IMAGE_MAX_BYTES.")
        return real.read_bytes()

    def _kept(self, data: bytes, etag: str | None = None, modified: str | None = None) -> _Known:
        size_wh = image_size(data, self._settings.image_max_pixels)
        return _Known(ImageRef(self._store.put(data), size_wh), time.monotonic(), etag, modified)


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
