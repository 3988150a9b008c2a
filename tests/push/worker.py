"""A process that pushes, and kills itself with ``kill -9`` at one moment of one request.

::

    python -m tests.push.worker URL HOME MOMENT REQUEST
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from pydantic import SecretStr

from tator_sdk import in_flight, push
from tator_sdk.settings import Settings
from tests.push.material import TASKS, VERSION, prediction

in_flight.SETTLE_SECONDS, in_flight.POLL_SECONDS = 0.8, 0.05  # the Label Studio of the test writes in 0.2 s


def main(url: str, home: str, moment: str, request: int) -> None:
    passed = []

    def moments(now: str) -> None:
        passed.append(now)
        if passed.count(moment) == request:
            os.kill(os.getpid(), signal.SIGKILL)

    settings = Settings(home=Path(home), label_studio_url=url, label_studio_api_key=SecretStr("legacy"))
    target = push.PredictionsOfVersion(settings, 7, VERSION, moments, together=20)
    target.push(TASKS, prediction, lambda _: None)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
