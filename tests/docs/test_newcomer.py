"""A newcomer reads page by page and types every command; `make newcomer`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from demo.environment import ENVIRONMENT
from demo.label_studio import LabelStudio, StudioSettings
from tests.docs.commands import PAGES, commands
from tests.docs.reader import Reader
from tests.docs.table import rule_of

pytestmark = [pytest.mark.newcomer, pytest.mark.studio, pytest.mark.timeout(3000)]
FIRST = {"README.md", "first-hour.md"}


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    """With a Label Studio of their own, and nothing of Tator but the checkout."""
    if not (ENVIRONMENT / "bin" / "label-studio").exists():
        pytest.skip("Label Studio is not installed: `make test` builds its environment")
    place = tmp_path_factory.mktemp("n")
    root = place / "served"
    root.mkdir()
    with LabelStudio(StudioSettings(place / "studio", port=20_080, document_root=root)) as studio:
        one = Reader(place, studio)
        one.make_projects()
        try:
            yield one
        finally:
            one.stop()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_of_a_page_works(page: object, reader: Reader) -> None:
    found = commands(page)  # type: ignore[arg-type]
    if found and found[0].page not in FIRST:
        reader.live_in()
    wrong = []
    for command in found:
        try:
            reader.follow(command, rule_of(command))
        except Exception as error:  # the other commands of the page are tried too
            wrong.append(str(error)[-3000:])
            print(f"          FAILED {command}", flush=True)
    assert not wrong, "\n\n".join(wrong)
