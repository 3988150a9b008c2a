"""Which tests run in one process, where several run side by side (pytest-xdist), and which are begun first."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from xdist.scheduler import LoadScopeScheduling

SHARED = {
    "browser": ("tests/browser/", "tests/attack/test_browser.py"),
    "studio": (
        "tests/studio/test_export.py", "tests/studio/test_team.py", "tests/studio/test_head.py",
        "tests/studio/test_words.py", "tests/studio/test_data.py", "tests/studio/test_connect.py",
        "tests/studio/test_warm.py", "tests/studio/test_polygons.py", "tests/tweak/test_project.py",
        "tests/relabel/test_project.py",
    ),
}  # fmt: skip
"""Files whose tests share servers, or a browser, that take a minute to start: one of each is enough."""

FIRST = (
    "browser", "studio", "tests/jobs/test_worker.py", "tests/vlm/test_detecting.py", "tests/adapters/test_sam2.py",
    "tests/training/test_killed.py", "tests/sam3_training/test_train.py", "tests/sam3_training/test_job.py",
    "tests/qwen/test_job.py", "tests/studio/test_label_studio_runner.py", "tests/engine/test_routing.py",
    "tests/deploy/test_compose.py",
)  # fmt: skip
"""What takes longest: begun last, one process would still be at it when the others have nothing left to do."""


def scope_of(nodeid: str) -> str:
    """What a test stays together with: its file, or a row of ``SHARED``."""
    path = nodeid.partition("::")[0]
    return next((name for name, places in SHARED.items() if path.startswith(places)), path)


def longest_first(items: Iterable[Any]) -> list[Any]:
    """Collected tests, those of ``FIRST`` before all others; each scope's own order stays."""
    ranks = {scope: rank for rank, scope in enumerate(FIRST)}
    return sorted(items, key=lambda item: ranks.get(scope_of(item.nodeid), len(FIRST)))


class SharedServers(LoadScopeScheduling):
    """A file stays together, and the files of a row of ``SHARED`` with each other; in the order they were collected.

    Without the last, xdist hands out first what has most tests, which says little of how long they take.
    """

    def __init__(self, config: Any, log: Any) -> None:
        config.option.loadscopereorder = False
        super().__init__(config, log)

    def _split_scope(self, nodeid: str) -> str:
        return scope_of(nodeid)
