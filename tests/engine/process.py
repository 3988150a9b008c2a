"""An engine in a process of its own that is forked where its libraries are imported: that takes all of its start.

Whether ``tator engine`` starts from nothing is asked in tests/deploy and tests/processes.
"""

from __future__ import annotations

import multiprocessing
import os
from multiprocessing.process import BaseProcess

from tator_sdk.settings import Settings

LIBRARIES = [
    "tator_ml.cli.serving", "tator_ml.engine.server", "tator_ml.engine.loading", "tator_ml.engine.segmenters.starter",
    "tator_ml.engine.encoders.openclip",
]  # fmt: skip


def start_engine(settings: Settings) -> BaseProcess:
    """``tator engine`` with these settings; ends with this process at the latest."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(LIBRARIES)
    process = context.Process(target=_serve, args=(settings.environment(),), daemon=True)
    process.start()
    return process


def _serve(variables: dict[str, str]) -> None:
    os.environ.update(variables)
    from tator_ml.cli.serving import engine

    engine()
