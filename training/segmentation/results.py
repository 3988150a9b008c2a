"""What is done of a build: in Redis for all shards, wherever they run, or in a file for a build in the foreground.

A picture's result is kept once, under its key, whoever comes first; the finishing step belongs to one job.
"""

from __future__ import annotations

import json
import threading
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol, cast

import redis

from tator_ml.jobs.records import JobError, JobRecords

KEPT_SECONDS = 7 * 24 * 3600  # after the last result, of a build that nobody ended

_END_SHARD = """
redis.call('SADD', KEYS[1], ARGV[1])
redis.call('EXPIRE', KEYS[1], ARGV[3])
if redis.call('SCARD', KEYS[1]) < tonumber(ARGV[2]) then return 0 end
return 1
"""
_TAKE_OVER = "if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('SET', KEYS[1], ARGV[2]) return 1 end return 0"


class Results(Protocol):
    """What is done of a build."""

    def __contains__(self, key: str) -> bool:
        """Whether a picture is done."""

    def empty(self) -> bool:
        """Whether nothing is done."""

    def put(self, key: str, result: dict[str, Any]) -> None:
        """Keep a picture's result; the first one stays."""

    def get(self, key: str) -> dict[str, Any] | None:
        """A picture's result, or None."""

    def end_shard(self, shard: int, shards: int) -> bool:
        """Say that a shard is through; returns whether all are."""

    def claim_finish(self, job_id: str) -> bool:
        """Whether the finishing step belongs to this job."""

    def report(self) -> dict[str, Any] | None:
        """What :meth:`end` kept, or None."""

    def end(self, report: dict[str, Any]) -> None:
        """Keep the report; the results go."""


class SharedResults:
    """In Redis; `Results`."""

    def __init__(self, connection: redis.Redis, build: str) -> None:
        self._connection = connection
        self._prefix = f"tator:polygons:{build}"

    def __contains__(self, key: str) -> bool:
        return bool(self._connection.hexists(f"{self._prefix}:results", key))

    def empty(self) -> bool:
        """See `Results`."""
        return not self._connection.exists(f"{self._prefix}:results")

    def put(self, key: str, result: dict[str, Any]) -> None:
        """See `Results`."""
        pipe = self._connection.pipeline()
        pipe.hsetnx(f"{self._prefix}:results", key, zlib.compress(json.dumps(result).encode()))
        pipe.expire(f"{self._prefix}:results", KEPT_SECONDS)
        pipe.execute()

    def get(self, key: str) -> dict[str, Any] | None:
        """See `Results`."""
        kept = cast(bytes | None, self._connection.hget(f"{self._prefix}:results", key))
        return None if kept is None else dict(json.loads(zlib.decompress(kept)))

    def end_shard(self, shard: int, shards: int) -> bool:
        """See `Results`."""
        keys, arguments = [f"{self._prefix}:shards:{shards}"], [shard, shards, KEPT_SECONDS]
        return bool(cast(Any, self._connection.register_script(_END_SHARD)(keys=keys, args=arguments)))

    def claim_finish(self, job_id: str) -> bool:
        """See `Results`; a job that has ended without finishing is followed by whoever asks next."""
        key = f"{self._prefix}:finish"
        if self._connection.set(key, job_id, nx=True, ex=KEPT_SECONDS):
            return True
        owner = (cast(bytes | None, self._connection.get(key)) or b"").decode()
        if owner == job_id:
            return True
        with suppress(JobError):
            if not JobRecords(self._connection).get(owner).over:
                return False
        return bool(cast(Any, self._connection.register_script(_TAKE_OVER)(keys=[key], args=[owner, job_id])))

    def report(self) -> dict[str, Any] | None:
        """See `Results`."""
        kept = cast(bytes | None, self._connection.get(f"{self._prefix}:report"))
        return None if kept is None else dict(json.loads(kept))

    def end(self, report: dict[str, Any]) -> None:
        """See `Results`; the report stays for an hour, for shards that come late."""
        pipe = self._connection.pipeline()
        pipe.set(f"{self._prefix}:report", json.dumps(report), ex=3600)
        pipe.delete(f"{self._prefix}:results", f"{self._prefix}:finish", f"{self._prefix}:shards:{report['shards']}")
        pipe.execute()


class LocalResults:
    """In a file of the job's folder, for a build in this process alone; `Results`."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "results.jsonl"
        self._lock = threading.Lock()
        self._places: dict[str, int] = {}
        with suppress(FileNotFoundError), self._path.open("rb") as file:
            place = 0
            for line in file:
                if not line.endswith(b"\n"):  # the last line of a crash
                    break
                self._places[str(json.loads(line)["key"])] = place
                place += len(line)
        with self._path.open("ab") as file:
            file.truncate(place if self._places else 0)

    def __contains__(self, key: str) -> bool:
        return key in self._places

    def empty(self) -> bool:
        """See `Results`."""
        return not self._places

    def put(self, key: str, result: dict[str, Any]) -> None:
        """See `Results`."""
        with self._lock:
            if key in self._places:
                return
            with self._path.open("ab") as file:
                place = file.tell()
                file.write(json.dumps({"key": key, "result": result}).encode() + b"\n")
            self._places[key] = place

    def get(self, key: str) -> dict[str, Any] | None:
        """See `Results`."""
        with self._lock:
            if key not in self._places:
                return None
            with self._path.open("rb") as file:
                file.seek(self._places[key])
                return dict(json.loads(file.readline())["result"])

    def end_shard(self, shard: int, shards: int) -> bool:
        """See `Results`."""
        return True

    def claim_finish(self, job_id: str) -> bool:
        """See `Results`."""
        return True

    def report(self) -> dict[str, Any] | None:
        """See `Results`."""
        return None

    def end(self, report: dict[str, Any]) -> None:
        """See `Results`."""
        self._path.unlink(missing_ok=True)
