"""``python -m tests.fuzz``: each target under libFuzzer, guided by coverage, for a stated number of inputs."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

FOUND = Path(__file__).parent / "found"
OURS = ["label_config", "tator_sdk", "tator_ml"]


def main(
    names: Annotated[list[str] | None, typer.Argument(help="Targets. Default: all.")] = None,
    inputs: Annotated[int, typer.Option(min=1, help="Inputs for each target.")] = 100_000,
    seconds: Annotated[int, typer.Option(min=1, help="Most seconds for each target.")] = 600,
    seed: Annotated[int, typer.Option(min=1, help="Of libFuzzer.")] = 1,
) -> None:
    """Fuzz the readers; what breaks one is kept in tests/fuzz/found, where the suite tries it again."""
    console, broken = Console(), False
    table = Table("target", "inputs", "edges", "seconds", "found", title="Coverage-guided fuzzing")
    for name in names or _names():
        began = time.monotonic()
        said, code = _fuzz(name, inputs, seconds, seed)
        reached = re.findall(r"#(\d+)\s+\w+\s+cov: (\d+)", said)
        done, edges = reached[-1] if reached else ("0", "0")
        done = (re.findall(r"Done (\d+) runs", said) or [done])[-1]
        table.add_row(name, done, edges, f"{time.monotonic() - began:.0f}", "nothing" if code == 0 else "BROKEN")
        if code:
            broken = True
            console.print(said[-3000:], markup=False)
    console.print(table)
    raise typer.Exit(int(broken))


def _names() -> list[str]:
    from tests.fuzz.targets import TARGETS

    return list(TARGETS)


def _fuzz(name: str, inputs: int, seconds: int, seed: int) -> tuple[str, int]:
    from tests.fuzz.targets import TARGETS

    target = TARGETS[name]
    kept = FOUND / name
    kept.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        corpus, words = Path(folder) / "corpus", Path(folder) / "words"
        corpus.mkdir()
        for number, one in enumerate(target.seeds):
            (corpus / f"seed-{number}").write_bytes(one)
        words.write_text("".join(f'"{re.sub(chr(34), chr(92) + chr(34), word)}"\n' for word in target.words))
        command = [
            sys.executable, "-m", "tests.fuzz.one", name, f"-runs={inputs}", f"-max_total_time={seconds}",
            f"-seed={seed}", f"-max_len={target.longest}", "-timeout=20", "-rss_limit_mb=3000",
            f"-artifact_prefix={kept}/", f"-dict={words}", str(corpus),
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if not any(kept.iterdir()):
        kept.rmdir()
    return done.stdout + done.stderr, done.returncode


if __name__ == "__main__":
    typer.run(main)
