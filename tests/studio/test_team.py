"""A team on one backend: tokens of people, work packages, who is where, and two projects with heads of their own."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest

import tator_ml
from demo.labelled import LabelledProject, labelled_project, region
from demo.people import Person, join
from demo.stack import DemoStack
from tator_ml.engine.head import Head
from tator_ml.learning.stores import head_registry
from tator_ml.web.membership import member
from tator_sdk.activity import look
from tator_sdk.auth import LabelStudioAuth
from tator_sdk.bulk import open_bulk
from tator_sdk.errors import TatorError
from tator_sdk.handing_out import HandingOut
from tator_sdk.packages import Share
from tator_sdk.settings import Settings
from tator_sdk.studio import StudioError
from training.starter.scenes import CLASSES

pytestmark = [pytest.mark.studio, pytest.mark.timeout(400)]

SEEDS = range(9_830_000, 9_830_010)
NAMES = sorted(name.capitalize() for name in CLASSES)
ANSWERS_EACH = 20
STARTER_HEAD = Path(tator_ml.__path__[0]) / "weights" / "starter_head"


@dataclass(frozen=True)
class Team:
    """Four people and two projects of the same pictures, whose heads call each shape by another's name."""

    people: tuple[Person, ...]
    projects: tuple[LabelledProject, LabelledProject]
    heads: tuple[str, str]


@pytest.fixture(scope="module")
def team(stack: DemoStack) -> Iterator[Team]:
    with (
        labelled_project(stack, "Team east", SEEDS, str.capitalize, NAMES) as east,
        labelled_project(stack, "Team west", SEEDS, str.capitalize, NAMES) as west,
    ):
        heads = [rotated_head(stack.settings, project.number, by) for project, by in ((east, 1), (west, 3))]
        run = secrets.token_hex(3)
        people = [join(stack.studio, f"{name}-{run}@example.com") for name in ("ann", "bob", "cas", "dan")]
        yield Team(tuple(people), (east, west), (heads[0], heads[1]))
        for person in people:
            person.web.close()


def rotated_head(settings: Settings, project: int, by: int) -> str:
    """Activate a head for a project that says the name of another class, and never abstains."""
    head = Head.load(STARTER_HEAD)
    names = [name.capitalize() for name in CLASSES]
    rows = [head.classes.index(name) for name in names]  # without the one for what is none of them
    swapped = replace(
        head, classes=tuple(names[by:] + names[:by]), weight=head.weight[rows], bias=head.bias[rows],
        threshold=0.0, margin=0.0, familiarity=-1.0, centers=None, areas=None, background=None,
    )  # fmt: skip
    registry = head_registry(settings)
    entry = registry.add(swapped, project, {})
    registry.activate(project, entry.version, "for this test")
    return entry.version


def listed(stack: DemoStack, token: str, **params: Any) -> set[int]:
    """Numbers of the tasks that Label Studio shows somebody."""
    auth = LabelStudioAuth(stack.studio.url, token)
    with httpx.Client(base_url=stack.studio.url, auth=auth, trust_env=False) as web:
        answer = web.get("/api/tasks", params={"page_size": 100, "include": "id", **params})
        return {task["id"] for task in answer.raise_for_status().json()["tasks"]}


def test_every_answer_comes_from_the_right_head(stack: DemoStack, team: Team) -> None:
    """Four people with tokens of both kinds ask in both projects at the same time."""
    tokens = [person.personal if row % 2 else person.legacy for row, person in enumerate(team.people)]
    said: list[tuple[int, int, str, str]] = []
    begin = threading.Barrier(len(tokens))

    def work(row: int) -> None:
        auth = LabelStudioAuth(stack.studio.url, tokens[row])
        with httpx.Client(base_url=stack.studio.url, auth=auth, timeout=60, trust_env=False) as web:
            begin.wait(30)
            for turn in range(ANSWERS_EACH):
                side = (turn + row) % 2
                project = team.projects[side]
                index = (turn // 2 + 3 * row) % len(project.tasks)
                task = project.tasks[index]
                asked = {"task": task.number, "context": {"result": [region("Star", task.boxes[0].xyxy, task.size_wh)]}}
                answer = web.post(f"/api/ml/{project.backend}/interactive-annotating", json=asked)
                found = answer.raise_for_status().json()["data"]
                label = found["result"][0]["value"]["rectanglelabels"][0]
                said.append((side, index, label, found["model_version"]))

    with ThreadPoolExecutor(len(tokens)) as pool:
        list(pool.map(work, range(len(tokens))))
    assert len(said) == ANSWERS_EACH * len(tokens)
    wrong = [one for one in said if not one[3].endswith(f"+{team.heads[one[0]]}")]
    assert not wrong, wrong
    # the same picture is called by the one name here and by the other there, whoever asks and whenever
    names = [name.capitalize() for name in CLASSES]
    for index in range(len(team.projects[0].tasks)):
        east, west = ({label for side, at, label, _ in said if (side, at) == (here, index)} for here in (0, 1))
        assert len(east) == len(west) == 1, (index, east, west)
        assert names.index(*west) == (names.index(*east) + 2) % len(names)


def test_a_token_says_whose_it_is_and_what_it_may_see(stack: DemoStack, team: Team) -> None:
    ann, numbers = team.people[0], {project.number for project in team.projects}
    for token in (ann.personal, ann.legacy):
        who = member(stack.settings, token)
        assert who.name == ann.email and who.projects is not None and numbers <= who.projects
        assert not who.administrator and not who.may_see(999_999)
    ann.revoke()
    for token in (ann.personal, "0" * 40, "a.b.c", ann.personal[:-4] + "AAAA"):
        with pytest.raises(TatorError) as refused:
            member(stack.settings, token)
        assert not isinstance(refused.value, StudioError) or refused.value.status == 401, refused.value
        assert token not in str(refused.value)


def test_packages_are_disjoint_and_together_complete(stack: DemoStack, team: Team) -> None:
    project = team.projects[0]
    work, bob = HandingOut(stack.settings, project.number), team.people[1]
    everything = {task.number for task in project.tasks}
    labelled, begun = project.tasks[2].number, project.tasks[4].number
    project.studio.annotations.create(labelled, result=project.tasks[2].result())
    bob.web.post(f"/api/tasks/{begun}/drafts", json={"result": [], "lead_time": 1}).raise_for_status()
    free = everything - {labelled, begun}
    own = project.studio.views.create(project=project.number, data={"title": "mine"})

    plan = work.plan([Share("ann"), Share("bob", 2)], most=3)
    assert [len(tasks) for _, tasks in plan.parts] == [1, 2] and plan.drafts == 1 and not plan.taken
    assert len(project.studio.views.list(project=project.number)) == 1, "a look changes nothing"
    first = work.hand_out([Share("ann"), Share("bob", 2)], 3, plan.signature)
    with pytest.raises(TatorError, match="look again"):
        work.hand_out([Share("ann"), Share("bob", 2)], 3, plan.signature)
    second = work.hand_out([Share("ann"), Share("cas")])
    with pytest.raises(TatorError, match="No task is left"):
        work.plan([Share("dan")])

    shown = [listed(stack, bob.personal, view=one.view) for one in [*first, *second]]
    assert sum(map(len, shown)) == len(set().union(*shown)), "nobody meets anybody"
    assert set().union(*shown) - {labelled, begun} == free
    assert [set(one.tasks) for one in [*first, *second]] == [tasks - {labelled, begun} for tasks in shown]
    titles = [view.data["title"] for view in project.studio.views.list(project=project.number)]
    assert titles == ["mine", "Tator: ann", "Tator: bob", "Tator: ann", "Tator: cas"]

    task = next(one for one in project.tasks if one.number == second[1].tasks[0])
    project.studio.annotations.create(task.number, result=task.result())
    assert [one.done for one in work.standing()] == [0, 0, 0, 1]

    project.studio.views.delete(str(first[0].view))  # by hand, in Label Studio
    assert [one.there for one in work.standing()] == [False, True, True, True]
    assert work.plan([Share("dan")]).parts == (("dan", first[0].tasks),)
    taken = work.take_back([one.id for one in second])
    assert {one.id for one in taken} == {one.id for one in second}
    left = [view.id for view in project.studio.views.list(project=project.number)]
    assert left == [own.id, first[1].view]
    again = work.hand_out([Share("dan")])
    assert set(again[0].tasks) == free - set(first[1].tasks) - {task.number}
    assert listed(stack, bob.legacy, view=again[0].view).isdisjoint(first[1].tasks)
    work.take_back([one.package.id for one in work.standing()])
    assert [view.id for view in project.studio.views.list(project=project.number)] == [own.id]


def test_who_is_where(stack: DemoStack, team: Team) -> None:
    project = team.projects[1]
    _, bob, cas, dan = team.people
    shared, alone = project.tasks[0].number, project.tasks[1].number
    for person, task in ((bob, shared), (cas, shared)):
        person.web.post(f"/api/tasks/{task}/drafts", json={"result": [], "lead_time": 1}).raise_for_status()
    for task in project.tasks[1:4]:
        dan.web.post(f"/api/tasks/{task.number}/annotations", json={"result": task.result()}).raise_for_status()
    with open_bulk(stack.settings) as api:
        found = look(api, project.number, time.time())
    seats = {seat.person: (seat.task, seat.doing) for seat in found.seats}
    assert seats == {
        bob.email: (shared, "labelling"),
        cas.email: (shared, "labelling"),
        dan.email: (project.tasks[3].number, "submitted"),
    }
    assert alone not in found.meetings and found.meetings == (shared,) and found.whole
    ((person, days),) = found.days.items()
    assert person == dan.email and sum(days.values()) == 3
