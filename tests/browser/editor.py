"""Label Studio's editor, driven as a hand would."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from demo.pictures import SETTINGS, TruthObject, truth_of
from demo.stack import DemoStack
from tator_sdk.geometry import Xyxy, area_xyxy

POINT, BOX, EXAMPLE = "key-point-tool", "rectangle-tool", "example"
GROUP_OF_LABELS = {POINT: 0, BOX: 1, EXAMPLE: 2}  # as the configuration has them

AUTO_ANNOTATION = ("bottombar-auto-annotation-toggle", "autoAnnotation")
AUTO_ACCEPT = ("bottombar-auto-accept-toggle", "autoAcceptSuggestions")

_ANNOTATION = "const annotation = Htx.annotationStore.selected;"
_IMAGE = _ANNOTATION + "const image = annotation.objects.find((one) => one.type === 'image');"
# Where the picture lies: the editor zooms it once more when its panels push it. Twice the same: it rests.
_PLACE = (
    "() => {" + _IMAGE + "const [zoom, , , , x, y] = image.stageRef.getAbsoluteTransform().getMatrix();"
    "const at = image.stageRef.container().getBoundingClientRect();"
    "return [at.x + x, at.y + y, zoom, image.stageZoom]; }"
)
_RESTS = (
    "() => { if (!window.Htx?.annotationStore?.selected) return false;" + _IMAGE + "if (!image?.stageRef) return false;"
    f"const now = JSON.stringify(({_PLACE})()); const same = now === window.lastPlace; window.lastPlace = now;"
    "return same; }"
)
_GO = (
    "(task) => { const url = new URL(location); url.searchParams.set('task', task);"
    "const state = {...Object.fromEntries(url.searchParams), task}; history.pushState(state, '', url);"
    "dispatchEvent(new PopStateEvent('popstate', {state})); }"
)
_IS_OPEN = "(task) => String(window.Htx?.task?.id) === String(task) && !!window.Htx.annotationStore?.selected"
_REGIONS = (
    "() => {" + _ANNOTATION + "return [...annotation.areas.values()].map("
    "(one) => ({id: one.cleanId, type: one.results[0].type, label: one.labelName, prompt: one.dynamic})); }"
)
_SUGGESTED = (
    "(wanted) => {" + _ANNOTATION + "const shown = [...annotation.suggestions.values()];"
    "const same = (one, {id, value}) => one.cleanId === id && "
    "['x', 'y', 'width', 'height'].every((key) => !(key in value) || Math.abs(one[key] - value[key]) < 0.01);"
    "return shown.length === wanted.length && wanted.every((each) => shown.some((one) => same(one, each))); }"
)
_FOOT = (
    "(index) => {" + _ANNOTATION + "const box = [...annotation.suggestions.values()][index].bboxCoords;"
    "return box?.right > box?.left && [(box.left + box.right) / 200, box.bottom / 100]; }"
)
_LEAVES = "() => { window.leaving = window.Htx.annotationStore.selected; }"
_IS_LOADED = (
    "() => { const {selected} = window.Htx?.annotationStore ?? {};"
    "return !!selected && selected !== window.leaving && !window.Htx.isSubmitting; }"
)
_NO_PROMPTS = "() => {" + _ANNOTATION + "return [...annotation.areas.values()].every((one) => !one.dynamic); }"


class Place(NamedTuple):
    """Where the picture lies on the page.

    Attributes:
        x: page pixels of its left edge.
        y: and of its upper one.
        zoom: of the stage, which the buttons beside a suggestion follow.
        fit: of the picture within the stage.
    """

    x: float
    y: float
    zoom: float
    fit: float


class Editor:
    """One task in the editor.

    Attributes:
        page: the browser's page.
        task: the task's number.
        suggested: what the backend answered last.
    """

    def __init__(self, page: Any, stack: DemoStack, task: int, project: int | None = None) -> None:
        self.page = page
        self.task = task
        self.suggested: list[dict[str, Any]] = []
        self._auto_accept = False
        self._open(f"{stack.studio.url}/projects/{project or stack.project}/data")
        page.wait_for_selector(".konvajs-content canvas")
        page.wait_for_function(_RESTS, polling=100)
        self._switch(AUTO_ANNOTATION, True)
        self.auto_accept(False)

    def _open(self, manager: str) -> None:
        """As the browser's own Back and Forward do where the project is open: its application takes seconds to load."""
        if self.page.url.startswith(manager) and self.page.evaluate("!!window.Htx?.annotationStore?.selected"):
            self.page.evaluate(_GO, self.task)
            self.page.wait_for_function(_IS_OPEN, arg=self.task)
        else:
            self.page.goto(f"{manager}?task={self.task}")

    def auto_accept(self, on: bool) -> None:
        """Accept whatever is suggested, or wait for the annotator."""
        self._switch(AUTO_ACCEPT, on)
        self._auto_accept = on

    def _switch(self, switch: tuple[str, str], on: bool) -> None:
        name, kept = switch
        told = "([kept, on]) => (localStorage.getItem(kept) === 'true') === on"
        if not self.page.evaluate(told, [kept, on]):
            self.page.get_by_test_id(name).click()
            self.page.wait_for_function(told, arg=[kept, on])

    def _place(self) -> Place:
        return Place(*self.page.evaluate(_PLACE))

    def at(self, point: tuple[float, float]) -> tuple[float, float]:
        """Picture pixels → page pixels."""
        place = self._place()
        scale = place.zoom * place.fit
        return place.x + point[0] * scale, place.y + point[1] * scale

    def tool(self, name: str, smart: bool = True) -> None:
        """Pick a tool: one that asks the backend, or the ordinary one; of two rectangles the last takes examples."""
        if smart:
            self.page.hover(".lsf-toolbar__group > button.lsf-tool_smart")
            if name == EXAMPLE:
                self.page.locator(f'.lsf-toolbar__smart button[aria-label="{BOX}"]').last.click()
                return
            self.page.click(f'.lsf-toolbar__smart button[aria-label="{name}"]')
        else:
            self.page.click(f'.lsf-toolbar__group > button[aria-label="{name}"]:not(.lsf-tool_smart)')

    def label(self, name: str, tool: str) -> None:
        """Pick a label of a tool."""
        group = self.page.locator(".lsf-labels").nth(GROUP_OF_LABELS[tool])
        group.locator(".lsf-label", has_text=name).first.click()

    def click(self, point: tuple[float, float], *held: str) -> None:
        """Click on the canvas, with keys held, and wait for the backend's answer."""
        with self._answered(), self._holding(held):
            self.page.mouse.click(*self.at(point))

    def drag(self, xyxy: Xyxy, asks: bool = True) -> None:
        """Draw a box and wait for the backend's answer, where the tool asks for one."""
        if asks:
            with self._answered():
                self._draw(xyxy)
        else:
            before = len(self.regions())
            self._draw(xyxy)
            self.page.wait_for_function(f"(count) => ({_REGIONS})().length > count", arg=before)

    def _draw(self, xyxy: Xyxy) -> None:
        self.page.mouse.move(*self.at((xyxy[0], xyxy[1])))
        self.page.mouse.down()
        self.page.mouse.move(*self.at((xyxy[2], xyxy[3])), steps=8)
        self.page.mouse.up()

    @contextmanager
    def _holding(self, keys: Sequence[str]) -> Iterator[None]:
        for key in keys:
            self.page.keyboard.down(key)
        yield
        for key in keys:
            self.page.keyboard.up(key)

    @contextmanager
    def _answered(self) -> Iterator[None]:
        with self.page.expect_response(lambda answer: "interactive-annotating" in answer.url) as answered:
            yield
        self.suggested = answered.value.json()["data"]["result"]
        if self._auto_accept:
            self.page.wait_for_function(_NO_PROMPTS)
        else:
            self.page.wait_for_function(_SUGGESTED, arg=self.suggested)

    def accept(self) -> None:
        """Accept all that is suggested, in the bottom bar."""
        self.suggested = []
        self.page.get_by_test_id("bottombar-accept-suggestions-button").click()
        self.page.wait_for_function(_SUGGESTED, arg=[])

    def reject(self) -> None:
        """Reject all that is suggested, in the bottom bar."""
        self.suggested = []
        self.page.get_by_test_id("bottombar-reject-suggestions-button").click()
        self.page.wait_for_function(_SUGGESTED, arg=[])

    def tick(self, index: int = 0) -> None:
        """Accept one suggestion with the small button beside it."""
        self._press_beside(index, 48)

    def cross(self, index: int = 0) -> None:
        """Reject one suggestion with the small button beside it."""
        self._press_beside(index, 16)

    def _press_beside(self, index: int, offset: float) -> None:
        across, down = self.page.wait_for_function(_FOOT, arg=index).json_value()
        self.page.wait_for_timeout(200)  # a mask's place is known before its buttons stand there
        del self.suggested[index]
        x, y = self.at((across * SETTINGS.size_wh[0], down * SETTINGS.size_wh[1]))
        zoom = self._place().zoom
        self.page.mouse.click(x - 32 * zoom + offset, y + 10 * zoom + 16)
        self.page.wait_for_function(_SUGGESTED, arg=self.suggested)

    def regions(self) -> list[dict[str, Any]]:
        """What stands on the canvas: id, type of result, label, and whether it is a prompt."""
        return list(self.page.evaluate(_REGIONS))

    @contextmanager
    def draft_with(self, region_id: str) -> Iterator[None]:
        """Wait until the draft with a region is saved, which the editor does every five seconds."""

        def saves(answer: Any) -> bool:
            return "/drafts" in answer.url and region_id in (answer.request.post_data or "")

        with self.page.expect_response(saves):
            yield

    def submit(self) -> None:
        """Submit the annotation, and wait until the editor has loaded its task anew.

        Who opened another task before that would see this one come back.
        """
        self.page.evaluate(_LEAVES)
        with self.page.expect_response(lambda answer: "/annotations" in answer.url and answer.request.method == "POST"):
            self.page.click('[aria-label="Submit current annotation"]')
        self.page.wait_for_function(_IS_LOADED)

    def strip(self) -> Any:
        """The strip's sentence, as a locator."""
        return self.page.frame_locator("iframe[src*='/strip']").locator("#say")


def loosely(xyxy: Xyxy, by: float = 0.08) -> Xyxy:
    """A box as one draws it by hand."""
    wide, high = by * (xyxy[2] - xyxy[0]), by * (xyxy[3] - xyxy[1])
    return xyxy[0] - wide, xyxy[1] - high, xyxy[2] + wide, xyxy[3] + high


def corners(region: dict[str, Any]) -> Xyxy:
    """A stored rectangle in picture pixels."""
    width, height = SETTINGS.size_wh
    value = region["value"]
    x0, y0 = value["x"] * width / 100, value["y"] * height / 100
    return x0, y0, x0 + value["width"] * width / 100, y0 + value["height"] * height / 100


def objects_of(stack: DemoStack, task: Any) -> list[TruthObject]:
    """A scene's objects that lie well on the canvas, the largest first, no two of their loose boxes touching.

    A drag or a click that begins inside a standing box takes hold of that box.
    """
    width, height = SETTINGS.size_wh
    chosen: list[TruthObject] = []
    objects = truth_of(stack.folder / Path(task.data["image"]).name)
    for one in sorted(objects, key=lambda each: -area_xyxy(each.xyxy)):
        x0, y0, x1, y1 = loosely(one.xyxy, 0.12)
        inside = x0 > 0.04 * width and y0 > 0.04 * height and x1 < 0.96 * width and y1 < 0.86 * height
        others = (loosely(other.xyxy, 0.12) for other in chosen)
        if inside and all(x1 < x or right < x0 or y1 < y or bottom < y0 for x, y, right, bottom in others):
            chosen.append(one)
    return chosen
