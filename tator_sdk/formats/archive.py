"""Zip archives of data sets, unpacked so that nothing of them can do harm.

Nothing is written outside of the folder, no link is made, nothing that was written before is written over, and what
an archive says of its sizes is not believed: the bytes are counted while they come.
"""

from __future__ import annotations

import lzma
import shutil
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from tator_sdk.formats.dataset import BadLine, DatasetError
from tator_sdk.formats.names import YAML
from tator_sdk.formats.pictures import PICTURES
from tator_sdk.unfinished import unfinished

WANTED = PICTURES | YAML | {".txt", ".json"}
CHUNK_BYTES = 1 << 20
DAMAGED = (zipfile.BadZipFile, EOFError, zlib.error, lzma.LZMAError, RuntimeError, ValueError, struct.error)
"""What ``zipfile`` raises of a damaged entry, and of one that wants a password or a method that is not there."""
UNREADABLE = (*DAMAGED, OSError)
"""The same of a whole archive, which may have been cut or not be there."""
RESERVED = frozenset(
    {"con", "prn", "aux", "nul", *(f"{kind}{number}" for kind in ("com", "lpt") for number in range(1, 10))}
)

SEALED = ".tator-sealed"
"""File in the folder of an unpacked archive: see `seal`."""


@dataclass(frozen=True)
class ArchiveLimits:
    """What an archive may hold at most; beyond it is refused as one that means to fill the disk.

    Attributes:
        entries: files in it.
        total_bytes: of all of them, unpacked.
        file_bytes: of one of them, unpacked.
        ratio: unpacked bytes for each packed one, over the whole archive once it unpacks to ``ratio_from_bytes``.
        ratio_from_bytes: small archives of blank pictures shrink a lot, and do no harm.
    """

    entries: int = 2_000_000
    total_bytes: int = 200 * 2**30
    file_bytes: int = 8 * 2**30
    ratio: float = 100.0
    ratio_from_bytes: int = 256 * 2**20


@dataclass(frozen=True)
class Unpacked:
    """An archive's files in a folder.

    Attributes:
        folder: that holds them.
        files: how many there are.
        skipped: entries that were left out, and why.
    """

    folder: Path
    files: int
    skipped: tuple[BadLine, ...]


def unpack(
    archive: Path,
    folder: Path,
    limits: ArchiveLimits | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Unpacked:
    """Unpack the pictures, labels and metadata of a zip.

    Entries that lead out of the folder, links, names that differ only in case, and damaged entries are left out and
    listed; what no data set needs (programs, other archives) is left out without a word.

    Args:
        archive: the zip.
        folder: an empty one, or one that is to be made; it appears only when it is complete.
        limits: of sizes.
        progress: told the bytes unpacked so far, and of how many.

    Raises:
        DatasetError: it is no zip, encrypted, beyond the limits, or larger than the free space.
    """
    limits = limits or ArchiveLimits()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DatasetError(f"{folder} is not empty; unpack {archive.name} into a new folder.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        with zipfile.ZipFile(archive) as source:
            entries = [entry for entry in source.infolist() if not _is_folder(entry)]
            _refuse(archive, entries, limits, shutil.disk_usage(folder.parent).free)
            with unfinished(folder.parent, f".{folder.name}-") as partial:
                for entry in source.infolist():
                    name = entry.filename.replace("\\", "/").rstrip("/")
                    if _is_folder(entry) and name and not _unsafe(entry, name):
                        partial.joinpath(*PurePosixPath(name).parts).mkdir(parents=True, exist_ok=True)
                unpacked = _write(source, entries, archive, partial, limits, progress)
                if folder.exists():
                    folder.rmdir()  # it is empty
                partial.rename(folder)
    except UNREADABLE as error:
        raise DatasetError(f"{archive} cannot be unpacked ({_short(error)}); is it a whole zip?") from error
    return Unpacked(folder, *unpacked)


def seal(folder: Path) -> None:
    """Have every reader of a folder keep to it: whoever sent the archive may not read everything here."""
    (folder / SEALED).touch()


def sealed_around(path: Path) -> Path | None:
    """The sealed folder that a path is, or lies in; None for what lies anywhere else."""
    path = path.resolve()
    return next((place for place in (path, *path.parents) if (place / SEALED).exists()), None)


def _refuse(archive: Path, entries: list[zipfile.ZipInfo], limits: ArchiveLimits, free: int) -> None:
    """Refuse the whole archive by what its directory says.

    Raises:
        DatasetError: it may not be unpacked.
    """
    if any(entry.flag_bits & 1 for entry in entries):
        raise DatasetError(f"{archive} is encrypted; unpack it yourself and give the folder.")
    if len(entries) > limits.entries:
        raise DatasetError(f"{archive} has {len(entries)} files, more than the {limits.entries} allowed; is it a bomb?")
    total, packed = sum(entry.file_size for entry in entries), archive.stat().st_size
    if total > limits.total_bytes:
        raise DatasetError(f"{archive} unpacks to {total} bytes, more than the {limits.total_bytes} allowed.")
    if total > limits.ratio_from_bytes and total > limits.ratio * packed:
        raise DatasetError(f"{archive} unpacks to {total // max(packed, 1)} times its size; is it a bomb?")
    if total > free:
        raise DatasetError(f"{archive} unpacks to {total} bytes, but only {free} are free; make room for it.")


def _write(
    source: zipfile.ZipFile,
    entries: list[zipfile.ZipInfo],
    archive: Path,
    folder: Path,
    limits: ArchiveLimits,
    progress: Callable[[int, int], None],
) -> tuple[int, tuple[BadLine, ...]]:
    skipped: list[BadLine] = []
    taken: set[str] = set()
    total, done, files = sum(entry.file_size for entry in entries), 0, 0
    for number, entry in enumerate(entries, 1):
        done += entry.file_size
        name = entry.filename.replace("\\", "/")
        if PurePosixPath(name).suffix.lower() not in WANTED and not _is_link(entry):
            continue
        reason = _unsafe(entry, name) or _taken(name, taken)
        if entry.file_size > limits.file_bytes:
            reason = f"it is larger than the {limits.file_bytes} bytes allowed"
        if not reason:
            reason = _extract(source, entry, folder.joinpath(*PurePosixPath(name).parts), limits)
        if reason:
            skipped.append(BadLine(archive, number, f"{_shown(entry.filename)}: {reason}"))
        else:
            files += 1
            taken.add(name.casefold())
        progress(done, total)
    progress(total, total)  # what is not wanted may come last
    return files, tuple(skipped)


def _unsafe(entry: zipfile.ZipInfo, name: str) -> str:
    """Why an entry may not be written; empty where it may."""
    parts = name.split("/")
    if name.startswith("/") or (len(name) > 1 and name[1] == ":"):
        return "an absolute path"
    if ".." in parts:
        return "a path that leads out of the folder"
    if _is_link(entry):
        return "a link"
    if any(not part.strip(". ") or ord(min(part)) < 32 or part.split(".")[0].lower() in RESERVED for part in parts):
        return "a name that not every system can have"
    if any(len(part.encode(errors="replace")) > 255 for part in parts):
        return "a name that is too long"
    return ""


def _taken(name: str, taken: set[str]) -> str:
    """Names that differ only in case are one on some systems: the second would replace the first."""
    return "another entry has this name, upper and lower case aside" if name.casefold() in taken else ""


def _is_folder(entry: zipfile.ZipInfo) -> bool:
    return entry.filename.endswith("/")  # ZipInfo.is_dir() stumbles over an entry without a name


def _is_link(entry: zipfile.ZipInfo) -> bool:
    kind = stat.S_IFMT(entry.external_attr >> 16)
    return kind not in {0, stat.S_IFREG, stat.S_IFDIR}


def _extract(source: zipfile.ZipFile, entry: zipfile.ZipInfo, target: Path, limits: ArchiveLimits) -> str:
    """Write one entry; why it could not be, and then nothing of it is left."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        written = 0
        with source.open(entry) as stream, target.open("xb") as file:
            while chunk := stream.read(CHUNK_BYTES):
                written += len(chunk)
                if written > min(entry.file_size, limits.file_bytes):
                    raise zipfile.BadZipFile("larger than its directory says")
                file.write(chunk)
        return ""
    except (FileExistsError, NotADirectoryError):
        return "a folder or a file of this name is there already"
    except DAMAGED as error:
        target.unlink(missing_ok=True)
        return f"damaged ({_short(error)})"


def _shown(name: str) -> str:
    return name.encode("unicode_escape", "replace").decode()[:200] if not name.isprintable() else name[:200]


def _short(error: BaseException) -> str:
    return str(error).splitlines()[0][:120] if str(error) else type(error).__name__
