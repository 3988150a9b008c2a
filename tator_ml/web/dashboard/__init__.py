"""The dashboard under ``/tator/``: pages made here, live by server-sent events, with a little script.

Each page is a module with ``PAGE``, its place in the menu, and ``add(routes, dashboard)``, its routes. What people see
is in ``templates/dashboard``; a part that changes by itself is a template of its own, rendered the same for the page
and for its stream (``live.py``).
"""

from tator_ml.web.dashboard.frame import blueprint, problem

__all__ = ["blueprint", "problem"]
