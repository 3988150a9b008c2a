"""Every command of the documentation is known, and right as far as can be told without running it.

``make newcomer`` runs them all (``test_newcomer.py``).
"""

from __future__ import annotations

import functools
import re
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from typer import Exit
from typer.main import get_command

from tator_sdk.cli import load_commands
from tests.docs.commands import (
    PAGES,
    ROOT,
    Block,
    Command,
    blocks,
    commands,
    every_command,
    is_command,
    without_comment,
    words,
)
from tests.docs.table import REPLACED, RULES, How, Unclassified, replaced, rule_of

BY_PAGE = {page.name: commands(page) for page in PAGES}
TOLD = {
    "CONTRIBUTING.md": ["label_config/   what"],
    "data.md": ["cars/images/{train,val}/…"],
    "design.md": ["label_config  ←"],
    "extending.md": ["my-tator/pyproject.toml"],
    "remote-gpu.md": ["tator.example {", "server {", "studio.example {"],
    "scale.md": ["engines = N"],
    "words.md": ["car, bus, kiosk"],
}
"""Blocks without a language that hold no command, by how they begin."""


@functools.cache
def tator() -> Any:
    return get_command(load_commands())


def parse(line: list[str]) -> None:
    """Have the command line read words as far as before the verb would run; raises what it would complain of."""
    command, rest = tator(), line
    context = command.make_context("tator", list(rest))
    while hasattr(command, "commands"):
        name, command, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        context = command.make_context(name, list(rest), parent=context)


def ready_to_parse(text: str) -> list[str] | None:
    """What a command line gives to ``tator``; None where that is not what it runs."""
    filled = re.sub(r"\{[\w:]*\}", "1", replaced(text))
    given = words(filled)
    for index, word in enumerate(given):
        if word in {"tator", "tator_sdk", "/opt/tator/bin/tator"}:
            return given[index + 1 :] or (None if index else [])
    return None


@pytest.mark.parametrize("page", BY_PAGE)
def test_every_command_has_a_class_and_is_right(page: str) -> None:
    for command in BY_PAGE[page]:
        rule = rule_of(command)
        checked = subprocess.run(["bash", "-n", "-c", replaced(command.text)], capture_output=True, text=True)
        assert checked.returncode == 0, f"{command}: {checked.stderr}"
        given = ready_to_parse(command.text)
        if given is not None and rule.how is not How.VERB:
            try:
                parse(given)
            except Exit:  # --help
                continue
            except Exception as error:
                raise AssertionError(f"{command}: {error}") from error


def test_examples_in_the_help_are_right() -> None:
    found = re.findall(r"Example: (?:\w+=\S+ )?tator (.+)", "\n".join(helps(tator())))
    assert len(found) > 15
    for line in found:
        try:
            parse(words(line.split(" > ")[0]))
        except Exception as error:
            raise AssertionError(f"tator {line}: {error}") from error


def helps(command: Any) -> Iterator[str]:
    """What a verb and those below it say of themselves."""
    yield command.help or ""
    for one in getattr(command, "commands", {}).values():
        yield from helps(one)


def test_make_targets_and_what_they_name_exist() -> None:
    made = [one for one in every_command() if one.text.startswith("make ")]
    for text in sorted({one.text for one in made}):
        line = text.split(" && ")[0]
        done = subprocess.run(["make", "-n", *words(line)[1:]], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, f"{text}: {done.stderr}"
        for name in re.findall(r"NAME=(\w+)", line):
            assert (ROOT / "benchmarks" / f"{name}.py").is_file(), f"{text}: there is no such benchmark"


def test_every_untagged_block_is_commands_or_told_not_to_be() -> None:
    for page in PAGES:
        for block in blocks(page):
            if block.language:
                continue
            lines = [line for text in block.text.splitlines() if (line := without_comment(text))]
            strange = [line for line in lines if not is_command(line)]
            known = any(block.text.startswith(begin) for begin in TOLD.get(page.name, ()))
            assert known or not strange, f"{page.name}:{block.line} has lines that no test runs: {strange}"


def test_no_rule_and_no_replacement_is_left_over() -> None:
    texts = [command.text for command in every_command()]
    unused = [rule.pattern for rule in RULES if not any(re.fullmatch(rule.pattern, text) for text in texts)]
    assert not unused, unused
    idle = [pattern for pattern, _, _ in REPLACED if not any(re.search(pattern, text) for text in texts)]
    assert not idle, idle


def test_what_this_test_would_find() -> None:
    with pytest.raises(Unclassified, match=r"page\.md:7"):
        rule_of(Command("page.md", 7, "curl somewhere", inline=False))
    with pytest.raises(Exception, match="No such option"):
        parse(words("connect --projekt 3"))
    with pytest.raises(Exception, match="No such command"):
        parse(words("models sam3 activte x"))
    assert ready_to_parse("docker compose exec web tator connect --project 1") == ["connect", "--project", "3"]
    assert Block("p", 1, "", "") and shutil.which("bash")
