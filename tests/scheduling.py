"""Which tests run in one process, where several run side by side (pytest-xdist)."""

from __future__ import annotations

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


class SharedServers(LoadScopeScheduling):
    """A file stays together, and the files of a row of ``SHARED`` with each other."""

    def _split_scope(self, nodeid: str) -> str:
        path = nodeid.partition("::")[0]
        return next((name for name, places in SHARED.items() if path.startswith(places)), path)
