"""The virtual environment of a private Label Studio, apart from our own and pinned."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

from demo.errors import LabelStudioError
from tator_ml.running.processes import Report

VERSION = "1.23.2"
CONSTRAINTS = Path(__file__).resolve().parent.parent / "constraints-label-studio.txt"
ENVIRONMENT = CONSTRAINTS.parent / ".venv-label-studio"

_BEGUN, _MARKER = "tator-begun", "tator-complete"
_QUIET = ("--disable-pip-version-check", "--progress-bar=off")


def ensure_environment(folder: Path, report: Report, constraints: Path = CONSTRAINTS) -> None:
    """Install Label Studio into the virtual environment ``folder``, unless it is there already.

    A marker is written last, so an install that was interrupted is done again from the beginning; another one is
    written first, and without either nothing that is there is removed. An environment without a marker that holds
    just what the pins say is accepted as it is.

    Raises:
        LabelStudioError: The folder is something else, or the install failed.
    """
    marker = folder / _MARKER
    wanted = hashlib.sha256(constraints.read_bytes()).hexdigest()
    if marker.exists() and marker.read_text().strip() == wanted:
        marker.touch()  # make compares its age with that of the pins
        return
    if not _pins_hold(folder, constraints):
        ours = marker.exists() or (folder / _BEGUN).exists()
        if folder.exists() and any(folder.iterdir()) and not ours:
            raise LabelStudioError(
                f"{folder} is not a virtual environment that was made here for Label Studio: give another folder, or "
                "remove it."
            )
        shutil.rmtree(folder, ignore_errors=True)
        report(f"Making {folder} for Label Studio {VERSION}; this takes a minute or two.")
        folder.mkdir(parents=True)
        (folder / _BEGUN).touch()
        _run_step([sys.executable, "-m", "venv", str(folder)], report)
        install = [str(folder / "bin" / "python"), "-m", "pip", "install", "--no-input", *_QUIET]
        _run_step([*install, f"label-studio=={VERSION}", "-c", str(constraints)], report)
        if not _pins_hold(folder, constraints):
            raise LabelStudioError(f"Label Studio in {folder} is not what {constraints.name} says.")
    marker.write_text(wanted + "\n")


def _pins_hold(folder: Path, constraints: Path) -> bool:
    """Whether all that is installed in ``folder`` is as pinned, Label Studio among it."""
    python = folder / "bin" / "python"
    if not (python.exists() and (folder / "bin" / "label-studio").exists()):
        return False
    command = [str(python), "-m", "pip", "freeze", _QUIET[0]]
    installed = subprocess.run(command, capture_output=True, text=True, check=False)
    pins = set(constraints.read_text().split())
    return installed.returncode == 0 and {f"label-studio=={VERSION}"} <= set(installed.stdout.split()) <= pins


def _run_step(command: list[str], report: Report) -> None:
    output: list[str] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            for line in process.stdout or ():
                output.append(line.strip())
                if found := re.match(r"(Collecting|Installing|Building wheel for) (\S+)", output[-1]):
                    report(f"Label Studio: {found[1].lower()} {found[2]}")
        except BaseException:
            process.kill()
            raise
    if process.returncode != 0:
        reason = next((line for line in reversed(output) if line.startswith("ERROR")), "\n".join(output[-5:]))
        raise LabelStudioError(f"Label Studio could not be installed, is a registry reachable? {reason}")
