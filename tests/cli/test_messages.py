"""What a person reads where a command fails: the sentence as it is, whatever stands in brackets."""

from __future__ import annotations

import pytest

from tator_sdk import cli
from tator_sdk.errors import TatorError


def test_brackets_of_a_sentence_are_no_markup(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails() -> None:
        raise TatorError("There is nothing at /data/[red]/cars[/x].")

    monkeypatch.setattr(cli, "load_commands", lambda: fails)
    with pytest.raises(SystemExit):
        cli.main()
    assert "/data/[red]/cars[/x]." in "".join(capsys.readouterr().err.split("\n"))
