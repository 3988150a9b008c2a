"""What is done with each command of the documentation, and what a reader puts in for names that are examples.

A command that is neither a verb of ``tator`` nor in ``RULES`` is an error: a new line has to be run, or
listed here with the reason why not.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

from tests.docs.commands import Command


class How(Enum):
    """What a test does with a command."""

    RUN = "run as it stands; it must end with 0"
    UP = "runs until it is stopped: started, seen to be up, stopped by its process id"
    MAKE = "long: `make -n` must know the target, and what its variables name must exist"
    LACKS = "needs what no test machine has: read by bash, and what it gives to `tator` by its command line"
    VERB = "only named in a sentence: its help is printed"


@dataclass(frozen=True)
class Rule:
    """What is done with commands of a form.

    Attributes:
        pattern: the whole command line.
        how: it is dealt with.
        why: it cannot simply be run.
        ready: what its output says when it is up.
        added: what the test adds so that it ends in time.
    """

    pattern: str
    how: How
    why: str = ""
    ready: str = ""
    added: str = ""


class Unclassified(AssertionError):
    """A command that no rule is for."""


SETTINGS = r"(?:[A-Z0-9_]+=\S+ )*"
TRAINS = "--epochs 1 --evaluate-pictures 1 --compare-pictures 2"

RULES = (
    Rule(r"make install && source \.venv/bin/activate", How.MAKE, "6 GB; the image check does its steps"),
    Rule(r"make demo CHECK=1", How.RUN),
    Rule(r"make demo.*", How.UP, ready="The demo is ready"),
    Rule(r"make (help|env-example)", How.RUN),
    Rule(r"make test ARGS=.*", How.RUN),
    Rule(r"make (faults|attack|newcomer)( ARGS=.*)?", How.MAKE, "minutes to an hour; the last one is this"),
    Rule(r"make (test|test-fast|lint|lint format|image-check|remote-check|starter)", How.MAKE, "minutes to hours"),
    Rule(r"python -m tests\.fuzz .*", How.MAKE, "minutes"),
    Rule(r"make audit", How.MAKE, "asks a registry for known holes, which a test machine may not reach"),
    Rule(r"make bench NAME=\w+", How.MAKE, "minutes to hours"),
    Rule(r"python -m training\.starter\.\w+( --output \S+)?", How.VERB, "hours; `make starter` is these"),
    Rule(r"apt-get .*", How.LACKS, "changes the machine"),
    Rule(r"(python3 -m venv|/opt/tator/bin/pip|useradd|install -D) .*", How.LACKS, "changes the machine"),
    Rule(r"cp deploy/systemd/.*", How.LACKS, "changes the machine"),
    Rule(r"/opt/tator/bin/tator .*|journalctl .*", How.LACKS, "what was installed by the lines before"),
    Rule(r"docker compose .*", How.LACKS, "no container engine; `make image-check` and tests/deploy stand in for it"),
    Rule(r"systemctl .*", How.LACKS, "no units are installed"),
    Rule(r"ssh -N .*", How.LACKS, "a second host; `make remote-check` has one"),
    Rule(r"hf auth login", How.LACKS, "an account of the hub"),
    Rule(r"tator models sam3 promote \S+", How.LACKS, "a training that was cut short; tests/sam3_training cuts one"),
    Rule(r"accelerate launch .*", How.LACKS, "several GPUs; tests/sam3_training has two processes"),
    Rule(r"tator connect .*--backend https://.*", How.LACKS, "a TLS proxy; `make remote-check` has one"),
    Rule(r"export \w+=\S+", How.RUN),
    Rule(r"cp \.env\.example \.env", How.RUN),
    Rule(r"tar -C \S+ .*", How.RUN),
    Rule(r"\.venv/bin/pip install .*my-tator", How.RUN),
    Rule(rf"{SETTINGS}tator up", How.UP, ready="Tator is up"),
    Rule(rf"{SETTINGS}tator serve", How.UP, ready="Listening at"),
    Rule(r"tator engine.*", How.UP, ready="engine ready"),
    Rule(r"tator worker.*", How.UP, ready="takes jobs from"),
    Rule(r"tator status --watch", How.UP, ready="warm"),
    Rule(r"tator train qwen (--dataset|--project 3).*", How.RUN, added=f"{TRAINS} --max-new-tokens 16"),
    Rule(r"tator train sam3 (--dataset|--project 3).*", How.RUN, added=TRAINS),
    Rule(rf"{SETTINGS}tator .*", How.RUN),
)  # fmt: skip
"""The first one that fits holds."""

READS = re.compile(
    r"tator (jobs|datasets|models|models qwen|models sam3) list|tator (settings|doctor|status|models sam3 storage)"
)
"""Verbs that are run when a sentence names them without an option: they only read."""

NAMED = re.compile(r"tator( [a-z][a-z-]*\d?)*")
"""A verb without arguments or options, as a sentence names it."""

REPLACED = (
    (r"(project )(?:N|1)\b", r"\g<1>3", "a project"),
    (r"(LABEL_STUDIO_API_KEY=)…", r"\1{token}", "a token of Label Studio"),
    (r"(LABEL_STUDIO_URL=)http://127\.0\.0\.1:8080", r"\1{studio}", "where Label Studio answers"),
    (r"(PASSWORD=)…", r"\1correct-horse-battery", "a password"),
    (r"(import --undo )\S+", r"\1{imported} --yes", "the last import; its question is answered"),
    (r"polygons-0c1d2e3f4a", "{build} --yes", "the last build; its question is answered"),
    (
        r"((tweak|relabel|prelabel) (?:sam3 |qwen )?--undo )JOB",
        r"\1{job:\2} --yes",
        "the last one; its question is answered",
    ),
    (r"(jobs (?:show|log|log --follow|cancel|retry) )(?:ID|JOB)", r"\1{job:}", "any job"),
    (r"head-p3-2|VERSION", "{head}", "a head of the project"),
    (r"qwen-p3-2", "{qwen}", "a tuned Qwen"),
    (r"(delete )sam3-p3-2", r"\1{sam3} --yes", "a tuned SAM 3; its question is answered"),
    (r"sam3-p3-2", "{sam3}", "a tuned SAM 3"),
    (r"sam3-3-7f2a", "{job:sam3}", "a training"),
    (r"/srv/pictures", "{root}", "Label Studio's LOCAL_FILES_DOCUMENT_ROOT"),
    (r"(register )PATH", r"\1cars", "a data set"),
    (r"(datasets delete cars)", r"\1 --yes", "its question is answered"),
    (r"sam2-tiny|mobile_sam|open_clip:ViT-B-32", "starter", "weights that need no hub"),
    (r"cuda:\d", "cpu", "a device that each machine has"),
    (r"10\.0\.0\.2:9100", "127.0.0.1:{port:1}", "an address of this machine"),
    (r"10\.0\.0\.2:9101", "127.0.0.1:{port:2}", "an address of this machine"),
    (r"/var/lib/tator", "{home}", "Tator's folder"),
    (r"(IMAGES=)(?:~/pictures|folder)", r"\1{pictures}", "a folder of pictures"),
)
"""Pattern, what stands there instead, and what that is. Names in braces are known to :class:`Reader` alone."""


def rule_of(command: Command) -> Rule:
    """What is done with a command.

    Raises:
        Unclassified: no rule is for it.
    """
    if command.inline and NAMED.fullmatch(command.text) and not READS.fullmatch(command.text):
        return Rule("", How.VERB)
    for rule in RULES:
        if re.fullmatch(rule.pattern, command.text):
            return rule
    raise Unclassified(f"{command} is in no class of tests/docs/table.py: run it there, or say why it cannot be")


def replaced(text: str) -> str:
    """A command with what a reader puts in for the page's examples; names in braces are still to be filled in."""
    for pattern, instead, _ in REPLACED:
        text = re.sub(pattern, instead, text)
    return text
