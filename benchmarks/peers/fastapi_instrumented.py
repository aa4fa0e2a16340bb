"""FastAPI with prometheus-fastapi-instrumentator, as its documentation shows."""

from fastapi_app import app
from prometheus_fastapi_instrumentator import Instrumentator

Instrumentator().instrument(app).expose(app)
