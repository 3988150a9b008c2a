"""A job that nobody queued: it tells how far it is on the screen."""

from __future__ import annotations

import time
from pathlib import Path


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
