"""The order of work, learned from requests alone."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tator_ml.worklist import FORGOTTEN_SECONDS, MOST_PLACES, NEXT, PREVIOUS, THIS, KnownTasks, Stretch, Want, WorkOrder

ON_A_BUSY_MACHINE = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=60)


def known(count: int = 200, begin: int = 1) -> KnownTasks:
    """Tasks that follow each other by number, as Label Studio lists them."""
    tasks = KnownTasks()
    tasks.add(Stretch(tuple(range(begin, begin + count)), first=True, last=True), 0)
    return tasks


def go(order: WorkOrder, tasks: KnownTasks, visits: Sequence[int], submit: bool = True, begin: float = 0) -> None:
    for second, task in enumerate(visits):
        order.came(task, begin + second, tasks)
        if submit:
            order.submitted(task, begin + second)


def next_of(order: WorkOrder, tasks: KnownTasks) -> list[int]:
    return [want.task for want in order.wanted(1000, tasks) if want.rank == NEXT]


@ON_A_BUSY_MACHINE
@given(begin=st.integers(30, 150), way=st.sampled_from([1, -1]), count=st.integers(2, 25), submit=st.booleans())
def test_one_annotator_in_either_direction(begin: int, way: int, count: int, submit: bool) -> None:
    order, tasks = WorkOrder(), known()
    visits = [begin + way * step for step in range(count)]
    go(order, tasks, visits, submit)
    wants = order.wanted(1000, tasks)
    assert wants[0] == Want(visits[-1], THIS)
    assert next_of(order, tasks)[0] == visits[-1] + way
    assert visits[-2] in [want.task for want in wants], "going back is warm too"


@ON_A_BUSY_MACHINE
@given(
    begins=st.lists(st.integers(0, 8), min_size=1, max_size=6, unique=True),
    ways=st.lists(st.sampled_from([1, -1]), min_size=6, max_size=6),
    turns=st.lists(st.integers(0, 5), min_size=40, max_size=80),
)
def test_several_annotators_far_from_each_other(begins: list[int], ways: list[int], turns: list[int]) -> None:
    """Whoever's turn it is, the task that each goes to next is among those made ready."""
    order, tasks = WorkOrder(), known(2000)
    at = [100 + 200 * begin for begin in begins]
    moves = [0] * len(at)
    for second, turn in enumerate(turns):
        who = turn % len(at)
        if moves[who] >= 2:
            ready = {want.task for want in order.wanted(second, tasks)}
            assert at[who] in ready, f"annotator {who} comes to a cold picture"
        order.came(at[who], second, tasks)
        order.submitted(at[who], second)
        at[who] += ways[who]
        moves[who] += 1


@ON_A_BUSY_MACHINE
@given(st.permutations(range(50, 850, 50)))
def test_who_comes_second_goes_as_the_first_did(shuffled: list[int]) -> None:
    """An order that no number explains, such as Label Studio's by uncertainty, is known the second time."""
    order, tasks = WorkOrder(), known(850)
    go(order, tasks, shuffled)
    order.wanted(100 + FORGOTTEN_SECONDS * 2, tasks)  # the first has gone home
    later = 200 + FORGOTTEN_SECONDS * 2
    for step, task in enumerate(shuffled[:-1]):
        order.came(task, later + step, tasks)
        wants = [want.task for want in order.wanted(later + step, tasks)]
        assert shuffled[step + 1] in wants
        order.submitted(task, later + step)


def test_every_third_task_is_a_habit_the_second_time() -> None:
    order, tasks = WorkOrder(), known()
    go(order, tasks, [10, 13, 16])
    assert next_of(order, tasks)[0] == 19


@ON_A_BUSY_MACHINE
@given(st.lists(st.tuples(st.integers(1, 10**6), st.booleans()), max_size=200))
def test_any_requests_leave_it_sound(requests: list[tuple[int, bool]]) -> None:
    order, tasks = WorkOrder(), KnownTasks()
    for second, (task, submit) in enumerate(requests):
        tasks.learn(task, ["/x"])
        order.came(task, second, tasks)
        assert order.places[0] == task
        if submit:
            order.submitted(task, second)
        wants = order.wanted(second, tasks)
        assert wants[0] == Want(task, THIS)
        assert len({want.task for want in wants}) == len(wants)
        assert [want.rank for want in wants] == sorted(want.rank for want in wants)
        assert len(order.places) <= MOST_PLACES
    assert not order.wanted(len(requests) + FORGOTTEN_SECONDS + 1, tasks), "nobody is there any more"


def test_a_click_on_the_same_task_changes_nothing() -> None:
    order, tasks = WorkOrder(), known()
    assert order.came(5, 0, tasks) and not order.came(5, 1, tasks)


def test_the_first_and_the_last_task_have_one_neighbour() -> None:
    order, tasks = WorkOrder(), known(3)
    order.came(3, 0, tasks)
    assert order.wanted(0, tasks) == [Want(3, THIS), Want(2, PREVIOUS)]
    assert tasks.around(3, 0) and tasks.around(1, 0)


@ON_A_BUSY_MACHINE
@given(st.lists(st.integers(1, 500), min_size=1, max_size=50, unique=True), st.sampled_from([1, -1]))
def test_without_a_page_the_nearest_heard_of_is_the_neighbour(heard: list[int], way: int) -> None:
    tasks = KnownTasks()
    for one in heard:
        tasks.learn(one, ["/x"])
    for one in heard:
        beyond = [other for other in heard if (other > one if way > 0 else other < one)]
        wanted = (min(beyond) if way > 0 else max(beyond)) if beyond else None
        assert tasks.ahead(one, way) == wanted and not tasks.around(one, 0)
