"""Pictures that are ready to be prompted, as far as a visitor may see them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tator_ml.engine.messages import Status, WarmStatus
from tator_ml.images.uses import PictureUses
from tator_ml.web.access import Visitor

MOST_SHOWN = 36


@dataclass(frozen=True)
class WarmView:
    """One warm picture.

    Attributes:
        warm: as the engine tells of it.
        uses: projects that the visitor may see and that showed it lately, with a task of each.
    """

    warm: WarmStatus
    uses: Mapping[int, int | None]


@dataclass(frozen=True)
class WarmPictures:
    """All warm pictures.

    Attributes:
        shown: the latest that the visitor may see.
        count: of all, with ``nbytes`` in memory.
        nbytes: see ``count``.
        others: how many are not shown.
    """

    shown: tuple[WarmView, ...]
    count: int
    nbytes: int

    @property
    def others(self) -> int:
        """How many are not shown."""
        return self.count - len(self.shown)


def warm_pictures(status: Status, uses: PictureUses, who: Visitor) -> WarmPictures:
    """What is warm, the latest first."""
    shown: list[WarmView] = []
    for one in status.warm:
        if len(shown) == MOST_SHOWN:
            break
        used = uses.of(one.image)
        theirs = {project: task for project, task in used.items() if who.may_see(project)}
        if theirs or who.administrator:
            shown.append(WarmView(one, theirs))
    return WarmPictures(tuple(shown), len(status.warm), sum(one.nbytes for one in status.warm))


def may_see_picture(image: str, uses: PictureUses, who: Visitor) -> bool:
    """Whether a picture is a visitor's to see: one of their projects showed it lately, or they are an administrator."""
    return who.administrator or any(who.may_see(project) for project in uses.of(image))
