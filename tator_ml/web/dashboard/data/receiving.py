"""A form with one large file, written to the disk as it comes: nothing of it is held in memory or kept twice."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from flask import Request
from werkzeug.exceptions import BadRequest, RequestEntityTooLarge
from werkzeug.sansio.multipart import Data, Epilogue, Field, File, MultipartDecoder, NeedData

CHUNK_BYTES = 1 << 18
FIELD_BYTES = 1 << 16


def receive(
    request: Request, target: Path, most_bytes: int, admit: Callable[[dict[str, str]], None]
) -> tuple[dict[str, str], str]:
    """Read a ``multipart/form-data`` request whose file comes behind its fields.

    Args:
        request: whose body nobody has read.
        target: takes the file.
        most_bytes: of the whole request.
        admit: raises where the fields do not entitle to send a file; asked before the first byte of it is written.

    Returns:
        The fields, and the file's name.

    Raises:
        BadRequest: it is no such form, or without a file.
        RequestEntityTooLarge: it is larger.
    """
    request.max_content_length = most_bytes
    boundary = request.mimetype_params.get("boundary", "")
    if request.mimetype != "multipart/form-data" or not boundary:
        raise BadRequest("This is no form with a file.")
    decoder = MultipartDecoder(boundary.encode("latin-1", "replace"), max_form_memory_size=None, max_parts=32)
    form = _Form(target, most_bytes, admit)
    try:
        while chunk := request.stream.read(CHUNK_BYTES):
            decoder.receive_data(chunk)
            form.take(decoder)
        decoder.receive_data(None)
        form.take(decoder)
    except ValueError as error:
        raise BadRequest("The upload was cut off or damaged on the way; send it again.") from error
    finally:
        form.close()
    if not form.file_name:
        raise BadRequest("Choose a file first.")
    return form.fields, form.file_name


class _Form:
    """What came so far."""

    def __init__(self, target: Path, most_bytes: int, admit: Callable[[dict[str, str]], None]) -> None:
        self.fields: dict[str, str] = {}
        self.file_name = ""
        self._target, self._most_bytes, self._admit = target, most_bytes, admit
        self._field: str | None = None
        self._file: BinaryIO | None = None
        self._written = 0

    def take(self, decoder: MultipartDecoder) -> None:
        """Deal with what the decoder makes of the bytes that it has."""
        while not isinstance(event := decoder.next_event(), NeedData):
            if isinstance(event, Field):
                self._field = event.name
                self.fields[event.name] = ""
            elif isinstance(event, File):
                self._begin(event)
            elif isinstance(event, Data):
                self._add(event.data)
            elif isinstance(event, Epilogue):
                return

    def close(self) -> None:
        """Write what is left."""
        if self._file is not None:
            self._file.close()

    def _begin(self, event: File) -> None:
        self._field = None
        if not event.filename or self._file is not None:
            raise BadRequest("Send one file at a time.") if event.filename else BadRequest("Choose a file first.")
        self._admit(self.fields)
        self.file_name = Path(event.filename.replace("\\", "/")).name[:200] or "archive.zip"
        self._file = self._target.open("xb")

    def _add(self, data: bytes | bytearray) -> None:
        if self._field is not None:
            self.fields[self._field] += bytes(data).decode("utf-8", "replace")
            if len(self.fields[self._field]) > FIELD_BYTES:
                raise RequestEntityTooLarge("A field of the form is too long.")
        elif self._file is not None:
            self._written += len(data)
            if self._written > self._most_bytes:
                raise RequestEntityTooLarge
            self._file.write(data)
