"""The engine in this process that finds bright rectangles is that of the tweak tests."""

from tests.tweak.conftest import settings, toy  # noqa: F401
