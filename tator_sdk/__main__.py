"""``python -m tator_sdk`` is the ``tator`` command."""

from tator_sdk.cli import main

main()
