"""The look for known weaknesses says what it knows, and plainly when it knows nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.audit import PINNED, pinned, read

ROOT = Path(__file__).parents[2]


def test_everything_pinned_is_asked_for() -> None:
    for path in PINNED:
        lines = [line for line in (ROOT / path).read_text().splitlines() if "==" in line and not line.startswith("#")]
        assert len(pinned(ROOT / path)) == len(lines) > 50


def test_what_the_service_says_is_read() -> None:
    weakness = {"id": "PYSEC-1", "fix_versions": ["2.0"], "aliases": [], "description": ""}
    found = read(json.dumps({"dependencies": [
        {"name": "a", "version": "1.0", "vulns": [weakness]}, {"name": "b", "version": "1.0", "vulns": []},
        {"name": "c", "skip_reason": "Dependency not found on PyPI"},
    ]}))  # fmt: skip
    assert (found.known, found.unknown) == (2, 1) and found.weak == ("a 1.0: PYSEC-1, mended in 2.0",)


@pytest.mark.attack
def test_without_a_service_nothing_is_claimed() -> None:
    away = {
        **os.environ,
        "HTTPS_PROXY": "http://127.0.0.1:9",
        "HTTP_PROXY": "http://127.0.0.1:9",
        "PYTHONPATH": str(ROOT),
    }
    done = subprocess.run(
        [sys.executable, "-m", "deploy.audit"], cwd=ROOT, env=away, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0 and done.stdout.count("NOT AUDITED") == len(PINNED), done.stdout + done.stderr
