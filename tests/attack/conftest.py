"""The dashboard's and the control API's application, as ``tests/dashboard`` builds it."""

from tests.dashboard.conftest import redis_url, settings, site

__all__ = ["redis_url", "settings", "site"]
