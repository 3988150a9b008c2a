"""A process that imports five pictures a request, and kills itself with ``kill -9`` at one moment of the third.

::

    python -m tests.importing.worker URL HOME FOLDER MOMENT
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from pydantic import SecretStr

from tator_sdk import in_flight
from tator_sdk.delivery import Delivery
from tator_sdk.importing import Importer
from tator_sdk.requests import DataImport
from tator_sdk.settings import Settings


def main(url: str, home: str, folder: str, moment: str) -> None:
    passed: list[str] = []

    def moments(now: str) -> None:
        passed.append(now)
        if passed.count(moment) == 3:
            os.kill(os.getpid(), signal.SIGKILL)

    Delivery.UPLOADED_TOGETHER, in_flight.SETTLE_SECONDS = 5, 1.0
    settings = Settings(home=Path(home), label_studio_url=url, label_studio_api_key=SecretStr("legacy"))
    Importer(DataImport(path=Path(folder), kind="yolo", project=7), settings, moments=moments).run()


if __name__ == "__main__":
    main(*sys.argv[1:])
