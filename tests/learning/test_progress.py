"""What the strip says of a training."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from tator_ml.jobs.records import JobRecord
from tator_ml.learning.progress import LearningProgress, in_words
from tator_sdk.settings import Settings

RUNNING = JobRecord(
    id="clip-3-7f2a", kind="clip", title="class head", project=3, request={}, status="running", done=3, total=4,
    what="embedding boxes", created=1.0, started=2.0, ended=None, attempt=1, result=None, error=None, host=None,
)  # fmt: skip


@pytest.mark.parametrize(
    ("job", "said"),
    [
        (RUNNING, "learning: embedding boxes 75 %"),
        (replace(RUNNING, total=0), "learning: embedding boxes"),
        (replace(RUNNING, status="queued"), "learning: waits for a worker"),
        (replace(RUNNING, status="done", ended=5.0, result={"version": "h", "activated": True}), None),
    ],
)
def test_in_words(job: JobRecord, said: str | None) -> None:
    assert in_words(job) == said


def test_the_end_is_told_for_a_minute() -> None:
    ended = replace(RUNNING, status="done", ended=time.time(), result={"version": "head-p3-2", "activated": True})
    assert in_words(ended) == "learned: head-p3-2 is active"
    assert in_words(replace(ended, result={"version": "h", "activated": False})) == "learned, not taken: h"
    failed = replace(ended, status="failed", result=None, error="There is no labelled box to learn from.")
    assert in_words(failed) == "learning failed: There is no labelled box to learn from."


def test_nothing_is_said_without_redis_and_nobody_waits(settings_without_redis: Settings) -> None:
    progress = LearningProgress(settings_without_redis)
    begun = time.monotonic()
    assert progress.said(3) is None and progress.said(None) is None
    assert time.monotonic() - begun < 1


@pytest.fixture
def settings_without_redis(tmp_path) -> Settings:  # type: ignore[no-untyped-def]
    return Settings(home=tmp_path)
