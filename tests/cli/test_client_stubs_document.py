"""cli/client_stubs_document.py: the document of a service, of a URL and of a file; files without a document."""

from __future__ import annotations

import json
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import trustme

from tinysvc import Service, io_route
from tinysvc.cli import client_stubs_document
from tinysvc.cli.client_stubs_document import checked, document_at, document_in_file, document_of_service, is_url
from tinysvc.server.loading import TargetError
from tinysvc.testing import serving

DOCUMENT = {"openapi": "3.1.0", "info": {"title": "x", "version": "1"}, "paths": {}}


@io_route("/")
async def index() -> str:
    return "hello"


@contextmanager
def responding(status: int, content: bytes, asked: list[str]) -> Iterator[str]:
    """A server that gives the same response to each request."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(status)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def test_targets_that_are_urls() -> None:
    assert all(map(is_url, ["http://a", "https://a:1/b", "unix:/run/a.sock"]))
    assert not any(map(is_url, ["a.py", "package.module", "examples", "httpx", "unix.py"]))


def test_document_of_a_service_that_is_not_served(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINYSVC_ROOT_PATH", "/api")
    found = document_of_service(lambda: Service(index, name="shop"), {})
    assert (found["info"]["title"], found["servers"]) == ("shop", [{"url": "/api"}])


def test_document_of_a_running_service() -> None:
    with serving(Service(index, name="shop")) as url:
        for target in (url, f"{url}/", f"{url}/openapi.json"):
            document, address = document_at(target, {})
            assert (document["info"]["title"], address) == ("shop", url)


def test_document_behind_a_unix_socket(tmp_path: Path) -> None:
    with serving(Service(index, name="shop"), unix=str(tmp_path / "s")):
        document, address = document_at(f"unix:{tmp_path / 's'}", {})
    assert (document["info"]["title"], address) == ("shop", f"unix:{tmp_path / 's'}")


@pytest.mark.parametrize(
    ("path", "asked", "address"),
    [
        ("", "/openapi.json", ""),
        ("/api/", "/api/openapi.json", "/api"),
        ("/api/openapi.json", "/api/openapi.json", "/api"),
        ("/docs/v1.json", "/docs/v1.json", ""),
    ],
)
def test_path_of_the_document(path: str, asked: str, address: str) -> None:
    requests: list[str] = []
    with responding(200, json.dumps(DOCUMENT).encode(), requests) as url:
        assert document_at(url + path, {}) == (DOCUMENT, url + address)
    assert requests == [asked]


def test_document_behind_https(tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "own.pem"))
    with serving(Service(index, name="shop"), ssl_cert=str(tmp_path / "own.pem")) as url:
        document, address = document_at(url, {"services_ca": str(tmp_path / "ca.pem")})
        assert (document["info"]["title"], address) == ("shop", url)
        with pytest.raises(
            TargetError, match=r"certificate verify failed.*; name the authority of its .* --services-ca"
        ):
            document_at(url, {})


def test_document_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps(DOCUMENT))
    assert document_in_file(str(tmp_path / "a.json")) == DOCUMENT
    with pytest.raises(TargetError, match=r"b\.json cannot be read: No such file or directory"):
        document_in_file(str(tmp_path / "b.json"))


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://", "http:// names no host; write it as in http://127.0.0.1:8000"),
        ("http://127.0.0.1:99999", "http://127.0.0.1:99999 has no valid port; a port is a number up to 65535"),
        (
            "unix:/no/such/socket",
            "unix:/no/such/socket cannot be reached: No such file or directory; is the service running?",
        ),
    ],
)
def test_wrong_url_is_explained(url: str, says: str) -> None:
    with pytest.raises(TargetError, match=f"^{re.escape(says)}$"):
        document_at(url, {})


def test_refused_connection_is_explained() -> None:
    with socket.socket() as closed:  # bound, but it does not listen
        closed.bind(("127.0.0.1", 0))
        with pytest.raises(TargetError, match="cannot be reached: Connection refused; is the service running"):
            document_at(f"http://127.0.0.1:{closed.getsockname()[1]}", {})


def test_https_to_a_plain_server_is_explained() -> None:
    with serving(Service(index)) as url, pytest.raises(TargetError, match=r"^https://.* cannot be reached: .*SSL"):
        document_at(url.replace("http://", "https://"), {})


@pytest.mark.parametrize(
    ("status", "content", "says"),
    [
        (404, b"", "responded with 404 Not Found, not with an OpenAPI document; name its URL if it has another one"),
        (307, b"", "responded with 307 Temporary Redirect"),
        (200, b"<html>", "is no OpenAPI document, because it is no JSON: Expecting value: line 1 column 1"),
        (200, b"\xff", "is no OpenAPI document, because it is no JSON"),
        (200, b" " * 101, "has more than 100 bytes"),
    ],
)
def test_response_that_is_no_document_is_explained(
    status: int, content: bytes, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_stubs_document, "LARGEST", 100)
    with responding(status, content, []) as url, pytest.raises(TargetError, match=re.escape(says)):
        document_at(url, {})


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ([], "x is no OpenAPI document: expected a JSON object with `openapi` and `paths`"),
        ({"openapi": "3.1.0", "paths": []}, "expected a JSON object with `openapi` and `paths`"),
        ({"paths": {}}, "it has no member `openapi` with a version, as in 3.1.0"),
        ({"swagger": "2.0", "paths": {}}, "x is a document of OpenAPI 2.0, but stubs are made from 3.1; convert"),
        ({"openapi": "3.0.3", "paths": {}}, "x is a document of OpenAPI 3.0.3, but stubs are made from 3.1; convert"),
    ],
)
def test_other_documents_are_refused(content: Any, says: str) -> None:
    with pytest.raises(TargetError, match=re.escape(says)):
        checked(json.dumps(content).encode(), "x")


def test_versions_that_are_read() -> None:
    for version in ("3.1.0", "3.1.1", "3.2.0"):
        assert checked(json.dumps({"openapi": version}).encode(), "x") == {"openapi": version}
