"""``python -m deploy.audit``: are there known weaknesses in the versions that we pin? pip-audit asks PyPI's advisories.

Where nobody answers, or a mirror answers without advisories, that is said plainly and nothing is claimed.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

PINNED = (Path("constraints.txt"), Path("constraints-label-studio.txt"))
SECONDS = 600
ANSWERS_LACK = 3
"""How many of the first packages may be unknown to the service, before the rest is not asked for."""


@dataclass(frozen=True)
class Audit:
    """What the service said.

    Attributes:
        known: packages that it knows in the pinned version.
        unknown: those that it does not.
        weak: sentences, one for each known weakness.
    """

    known: int
    unknown: int
    weak: tuple[str, ...]


class NoAnswerError(Exception):
    """The service cannot be asked."""


def pinned(path: Path) -> list[str]:
    """The lines ``name==version`` of a file of constraints, without markers and local versions."""
    lines = [line.split("#")[0].split(";")[0].strip() for line in path.read_text().splitlines()]
    return [line.partition("+")[0] for line in lines if "==" in line and "@" not in line]


def read(said: str) -> Audit:
    """What pip-audit says as JSON."""
    found: list[dict[str, Any]] = json.loads(said)["dependencies"]
    skipped = [one for one in found if "skip_reason" in one]
    weak = tuple(
        f"{one['name']} {one['version']}: {its['id']}, mended in {', '.join(its['fix_versions']) or 'none yet'}"
        for one in found
        for its in one.get("vulns", ())
    )
    return Audit(len(found) - len(skipped), len(skipped), weak)


def ask(requirements: list[str]) -> Audit:
    """Ask the service about pinned packages.

    Raises:
        NoAnswerError: it cannot be reached.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "pinned.txt"
        file.write_text("\n".join(requirements) + "\n")
        command = [sys.executable, "-m", "pip_audit", "-r", str(file), "--no-deps", "--disable-pip", "-f", "json"]
        try:
            done = subprocess.run(
                [*command, "--progress-spinner", "off"], capture_output=True, text=True, timeout=SECONDS, check=False
            )
            if "No module named" in done.stderr:
                raise RuntimeError("pip-audit is not installed: pip install -e '.[dev]'")
            return read(done.stdout)
        except (subprocess.TimeoutExpired, ValueError, KeyError) as error:
            raise NoAnswerError from error


def main(
    files: Annotated[list[Path] | None, typer.Argument(help="Files of constraints. Default: both of ours.")] = None,
) -> None:
    """Look for known weaknesses; ends with 1 where there are any."""
    weak: tuple[str, ...] = ()
    for path in files or PINNED:
        requirements = pinned(path)
        try:
            if ask(requirements[:ANSWERS_LACK]).known == 0:
                raise NoAnswerError
            found = ask(requirements)
        except NoAnswerError:
            print(
                f"{path}: NOT AUDITED: the service of advisories does not answer here, or has none. Nothing is known."
            )
            continue
        print(
            f"{path}: {found.known} packages audited, {found.unknown} unknown to the service, {len(found.weak)} weak."
        )
        weak += found.weak
    for sentence in weak:
        print(f"  {sentence}")
    raise typer.Exit(int(bool(weak)))


if __name__ == "__main__":
    typer.run(main)
