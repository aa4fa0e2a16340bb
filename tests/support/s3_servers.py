"""An S3-compatible server on a free port: moto's application, with faults on request."""

from __future__ import annotations

import logging
import threading
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tinysvc.models.object_storage import ObjectStorage
from tinysvc.models.object_urls import object_storage

Answer = Iterable[bytes]
Start = Callable[..., Any]
Fault = Callable[[dict[str, Any]], str | None]

BUCKET = "company"


class S3Server:
    """The server, and what is wrong with it.

    Attributes:
        ignores_create: It overlooks `If-None-Match`, as older services do.
        fault: Is called for each request with the environment (WSGI); a status such as "503 Service Unavailable"
            becomes the answer. With `after_work`, the request has its effect all the same.
        requests: The requests, as in "PUT /company/churn/1.json".
    """

    def __init__(self) -> None:
        from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app  # takes a second
        from werkzeug.serving import make_server

        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self._moto = DomainDispatcherApplication(create_backend_app)
        self._one = threading.Lock()  # moto checks and writes without a lock: real services do not
        self.ignores_create = False
        self.after_work = False
        self.fault: Fault | None = None
        self.requests: list[str] = []
        self._server = make_server("127.0.0.1", 0, self._respond, threaded=True)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self.make_bucket(BUCKET)

    def make_bucket(self, name: str) -> None:
        urllib.request.urlopen(urllib.request.Request(f"{self.url}/{name}", method="PUT")).close()

    @property
    def environ(self) -> dict[str, str]:
        """The variables of its clients."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_REGION": "us-east-1",
        }

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def recover(self) -> None:
        """Work again."""
        self.fault, self.after_work, self.ignores_create = None, False, False
        self.requests.clear()

    def _respond(self, environ: dict[str, Any], start: Start) -> Answer:
        if environ["REQUEST_METHOD"] in ("PUT", "POST", "DELETE"):
            with self._one:
                return self._answer(environ, start)
        return self._answer(environ, start)

    def _answer(self, environ: dict[str, Any], start: Start) -> Answer:
        self.requests.append(f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}")
        status = self.fault(environ) if self.fault is not None else None
        if status is not None and not self.after_work:
            start(status, [("content-length", "0")])
            return [b""]
        if self.ignores_create:
            environ.pop("HTTP_IF_NONE_MATCH", None)
        content: list[bytes] = []
        heads: list[tuple[Any, ...]] = []
        content.extend(self._moto(environ, lambda *head: heads.append(head)))
        if status is not None:
            start(status, [("content-length", "0")])
            return [b""]
        start(*heads[-1])
        return content


def failing(*statuses: str, method: str = "PUT") -> Fault:
    """A fault: the first requests with this method get these statuses."""
    left = list(statuses)

    def fault(environ: dict[str, Any]) -> str | None:
        return left.pop(0) if environ["REQUEST_METHOD"] == method and left else None

    return fault


def slow(seconds: float) -> Fault:
    """A fault: each answer takes so long."""

    def fault(environ: dict[str, Any]) -> None:
        time.sleep(seconds)

    return fault


@contextmanager
def s3_server() -> Iterator[S3Server]:
    server = S3Server()
    try:
        yield server
    finally:
        server.close()


_numbers = iter(range(1_000_000))


def s3_storage(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> ObjectStorage:
    """A storage below a prefix of its own. The variables stay set."""
    for name, value in server.environ.items():
        monkeypatch.setenv(name, value)
    return object_storage(f"s3://{BUCKET}/models-{next(_numbers)}")
