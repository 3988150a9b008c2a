"""Train and Models in a real browser: a head is trained from the form, watched, activated, compared, rolled back."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from demo.labelled import LabelledProject, labelled_project
from demo.stack import DemoStack
from tator_ml.jobs import JobRecords, connect_redis
from tator_ml.launch import launch
from tator_ml.learning.stores import head_registry, project_choices
from tator_sdk.requests import HeadTraining
from tests.jobs.conftest import until
from training.starter.scenes import CLASSES

from .dashboard import check_accessible, check_fits_a_phone, opened, picture

pytestmark = [pytest.mark.browser, pytest.mark.studio, pytest.mark.timeout(600)]

PICTURES_WANTED = bool(os.environ.get("TATOR_PICTURES"))  # the tests themselves see no such variable
SEEDS = range(9_880_000, 9_880_040)
NAMES = {shape: shape.capitalize() for shape in CLASSES}


@pytest.fixture(scope="module")
def project(stack: DemoStack) -> Iterator[LabelledProject]:
    """Annotated scenes of its own; the first head is trained by the form alone."""
    with labelled_project(
        stack, "Shapes to learn", SEEDS, NAMES.__getitem__, sorted(NAMES.values()), annotated=True
    ) as made:
        project_choices(stack.settings).choose(made.number, train_after=0)
        yield made


@pytest.fixture
def trained(stack: DemoStack, project: LabelledProject) -> None:
    """The project has a head: of the test before, or one that is trained now."""
    if not head_registry(stack.settings).list(project.number):
        request = HeadTraining(project=project.number, max_iter=300, activation="never")
        (job,) = launch(stack.settings, request)
        with connect_redis(stack.settings) as connection:
            until(lambda: JobRecords(connection).get(job.id).status == "done", 120)


def shot(tab: Any, name: str) -> None:
    if PICTURES_WANTED:
        picture(tab, name)


def looked_at(tab: Any) -> None:
    check_accessible(tab)
    check_fits_a_phone(tab)


def test_a_head_is_trained_watched_activated_and_rolled_back(
    page: Any, stack: DemoStack, project: LabelledProject
) -> None:
    at, number = f"{stack.settings.backend_url}/tator", project.number
    with opened(page, f"{at}/train?kind=clip&project={number}") as tab:
        # A look first: what would be learned.
        assert tab.input_value("#source") == f"project:{number}"
        tab.get_by_role("button", name="Look first").click()
        tab.wait_for_selector("#found table", timeout=180_000)
        assert "to learn from" in tab.inner_text("#found") and "Disc" in tab.inner_text("#found")
        looked_at(tab)
        shot(tab, "dashboard-look")
        tab.get_by_role("link", name="Change the settings").click()

        # The form: every setting, help, errors beside their fields.
        tab.get_by_text("Regression", exact=True).click()
        looked_at(tab)
        shot(tab, "dashboard-train")
        wrong = tab.context.new_page()  # a refusal is no page without errors for the browser's console
        wrong.goto(tab.url)
        wrong.eval_on_selector("form[aria-label]", "form => form.noValidate = true")
        wrong.eval_on_selector("#field-max_iter", "input => input.value = 0")
        wrong.get_by_role("button", name="Start the training").click()
        assert "greater than or equal to 1" in wrong.inner_text("#field-max_iter-wrong")
        check_accessible(wrong)
        wrong.close()
        tab.fill("#field-max_iter", "300")
        tab.get_by_text("When it answers, when it is taken").click()
        tab.select_option("#field-activation", "never")
        tab.get_by_role("button", name="Start the training").click()

        # Watched on its page until it is done.
        tab.wait_for_url("**/tator/jobs/**")
        job = tab.url.rsplit("/", 1)[1]
        tab.locator(".badge", has_text="done").first.wait_for(timeout=120_000)
        with connect_redis(stack.settings) as connection:
            result = JobRecords(connection).get(job).result
        assert result is not None and not result["activated"]
        version = result["version"]

        # Not active yet: activated, it answers.
        tab.goto(f"{at}/models/head/{version}")
        assert tab.locator(".matrix").count() == 1 and "Settings that differ" in tab.inner_text("main")
        looked_at(tab)
        shot(tab, "dashboard-model")
        tab.get_by_role("button", name="Activate").click()
        tab.locator(".flash.good", has_text=f"{version} is active in project {number}").wait_for()
        assert project_choices(stack.settings).get(number).head == version
        looked_at(tab)
        shot(tab, "dashboard-models")

        # Back to what was before.
        tab.once("dialog", lambda dialog: dialog.accept())
        tab.get_by_role("button", name="Roll back").first.click()
        tab.locator(".flash.good", has_text="is back at the default").wait_for()
        assert project_choices(stack.settings).get(number).head is None


@pytest.mark.usefixtures("trained")
def test_two_heads_are_compared(page: Any, stack: DemoStack, project: LabelledProject) -> None:
    at, number = f"{stack.settings.backend_url}/tator", project.number
    with opened(page, f"{at}/models?project={number}") as tab:
        tab.locator("tbody th a").first.click()
        tab.get_by_role("link", name="Train again with these settings").click()
        assert tab.input_value("#field-max_iter") == "300"
        tab.get_by_text("Regression", exact=True).click()
        tab.select_option("#field-class_weight", "none")
        tab.get_by_role("button", name="Start the training").click()
        tab.wait_for_url("**/tator/jobs/**")
        tab.locator(".badge", has_text="done").first.wait_for(timeout=120_000)
        tab.goto(f"{at}/models?project={number}")
        for place in (0, 1):
            tab.locator("input[name=version]").nth(place).check()
        tab.get_by_role("button", name="Compare the two chosen").click()
        assert "Class weight" in tab.inner_text("main")
        looked_at(tab)
        shot(tab, "dashboard-compare")
