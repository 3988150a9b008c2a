"""One target under libFuzzer, in a process of its own; options are libFuzzer's (https://llvm.org/docs/LibFuzzer.html)."""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["label_config", "tator_sdk", "tator_ml"], enable_loader_override=False):
    from tests.fuzz.targets import TARGETS

if __name__ == "__main__":
    target = TARGETS[sys.argv.pop(1)]
    atheris.Setup(sys.argv, target.read)
    atheris.Fuzz()
