"""The routes /jobs and /jobs.json: a page that lists the durable jobs of all routes, and the data that it loads.

The page cancels and retries a job by a request to the job's own route, whose resources and middleware guard it. The
list itself is only behind the middleware of the service: it shows the jobs of every route, so it is off unless a
setting asks for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ...core.encoding import json_bytes
from ...core.requests import Request
from ...core.responses import JSON, Handler, Response
from ...core.settings import Settings
from ...web.offline_page import offline_page
from ..records import State
from ..store import Store
from .documents import document_of
from .list_queries import list_query

FOLDER = Path(__file__).parent / "jobs_page"


def shows_jobs_page(settings: Settings) -> bool:
    """Whether the server has the page: if a setting asks for it, and during development."""
    return settings.jobs_page or settings.reload


def jobs_pages(store: Store, routes: Sequence[str]) -> dict[str, Handler]:
    """The handlers of /jobs and /jobs.json, by path.

    Args:
        store: The store of the jobs.
        routes: Path patterns of the job routes.
    """
    served = set(routes)

    async def listed(request: Request) -> Response:
        state, limit, _ = list_query(request)
        route = request.query.get("route", [""])[0]
        page = await store.page(route or None, state, limit, "")
        content = {
            "jobs": [document_of(each, request.root_path, is_served=each.route in served) for each in page.records],
            "counts": {each.value: page.counts.get(each.value, 0) for each in State},
            "routes": list(routes),
            "has_more": bool(page.next),
            "problem": store.problem,
        }
        return Response(json_bytes(content), headers=[("cache-control", "no-store")], content_type=JSON)

    return {"/jobs": offline_page(FOLDER, ("page.js",), ("credentials.js",)), "/jobs.json": listed}
