"""The applications as ``tests/dashboard`` and ``tests/wire`` build them; settings are the dashboard's."""

from tests.dashboard.conftest import settings, site
from tests.dashboard.test_access import members

__all__ = ["members", "settings", "site"]
