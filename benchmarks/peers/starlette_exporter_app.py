"""Starlette with starlette_exporter, as its documentation shows."""

from starlette.routing import Route
from starlette_app import app
from starlette_exporter import PrometheusMiddleware, handle_metrics

app.add_middleware(PrometheusMiddleware, group_paths=True, filter_unhandled_paths=True)
app.router.routes.append(Route("/metrics", handle_metrics))
