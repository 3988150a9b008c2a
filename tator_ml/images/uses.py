"""Which tasks showed a picture lately: who may see a picture by its content hash alone, and where it is found."""

from __future__ import annotations

import threading
from collections import OrderedDict

MOST_PICTURES = 20_000


class PictureUses:
    """The present of one web process, in memory; a picture that is opened again is known again."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._uses: OrderedDict[str, dict[int, int | None]] = OrderedDict()

    def seen(self, image: str, project: int, task: int | None) -> None:
        """A task of a project showed a picture.

        Args:
            image: content hash.
            project: Label Studio's number; ``task`` likewise, None where it has none yet.
            task: see ``project``.
        """
        with self._lock:
            self._uses.setdefault(image, {})[project] = task
            self._uses.move_to_end(image)
            while len(self._uses) > MOST_PICTURES:
                self._uses.popitem(last=False)

    def of(self, image: str) -> dict[int, int | None]:
        """Projects that used a picture, with the latest task of each."""
        with self._lock:
            return dict(self._uses.get(image, {}))
