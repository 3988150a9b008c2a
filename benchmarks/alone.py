"""A job that nobody queued: it tells how far it is on the screen, and what it made is kept for the next time."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import time
from pathlib import Path


def home_of(name: str, *code: str) -> Path:
    """Folder of what a benchmark learned, named by what it learned with: other code or options learn anew.

    Args:
        name: of the benchmark.
        code: modules and packages, by dotted names: those with its options, and the trainer. Comments do not count.
    """
    digest = hashlib.sha256()
    for one in code:
        found = importlib.util.find_spec(one)
        if found is None or found.origin is None:
            raise ModuleNotFoundError(one)
        package = found.submodule_search_locations is not None
        files = sorted(Path(found.origin).parent.rglob("*.py")) if package else [Path(found.origin)]
        for path in files:
            digest.update(ast.dump(ast.parse(path.read_text())).encode())
    return Path(".tator") / f"benchmark-{name}" / digest.hexdigest()[:10]


class Alone:
    """What a training needs of a job.

    Attributes:
        id: its name.
        folder: its own; what an interrupted one left there is taken up.
        seconds: that all its attempts took, to the last few.
    """

    def __init__(self, folder: Path) -> None:
        """Prepare it in a folder, whose name is its own."""
        self.id = folder.name
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._clock = folder / "seconds"
        self._before = float(self._clock.read_text()) if self._clock.exists() else 0.0
        self._begun = self._told = time.monotonic()

    @property
    def seconds(self) -> float:
        """See there."""
        return self._before + time.monotonic() - self._begun

    def progress(self, done: int, total: int, what: str) -> None:
        """Not shown: the log tells enough."""
        if time.monotonic() - self._told > 5:
            self._told = time.monotonic()
            self._clock.write_text(repr(self.seconds))

    def check(self) -> None:
        """Nobody cancels it."""

    def log(self, line: str) -> None:
        """A line on the screen."""
        print(f"  {self.id}: {line}", flush=True)

    def point(self, **values: float | int | str) -> None:
        """The loss, now and then, on the screen."""
        if int(values.get("step", 0)) % 100 == 0 and "loss" in values:
            parts = "".join(f", {name} {value:.3f}" for name, value in values.items() if name.startswith("loss_"))
            print(f"  {self.id}: step {values['step']}, loss {values['loss']:.3f}{parts}", flush=True)
