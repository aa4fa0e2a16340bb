"""conditional.py: the conditions of RFC 9110, 13 in a table, entity-tags and dates."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import httpx
import pytest

from tinysvc import Request, Response, Service, cpu_route, io_route
from tinysvc.core.errors import HTTPError
from tinysvc.core.headers import Headers
from tinysvc.testing import serving
from tinysvc.web.conditional import precondition, read_date, tags_in, validators

THEN = 784111777  # Sun, 06 Nov 1994 08:49:37 GMT
DATE, EARLIER, LATER = (f"Sun, 06 Nov 1994 08:49:{second} GMT" for second in (37, 36, 38))


NONE, MATCH = "if_none_match", "if_match"
SINCE, UNTIL = "if_modified_since", "if_unmodified_since"


def ask(method: str, etag: str, last_modified: Any, **headers: str) -> int:
    """The status of the response; 200 if the handler continues."""
    raw = [(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in headers.items()]
    try:
        response = precondition(Request(method, "/", headers=Headers(raw)), etag=etag, last_modified=last_modified)
    except HTTPError as error:
        return error.status
    if response is None:
        return 200
    assert response.headers == validators(etag=etag, last_modified=last_modified)
    assert response.content == b""
    return response.status


@pytest.mark.parametrize(
    ("method", "etag", "modified", "headers", "status"),
    [
        ("GET", "a", None, {}, 200),
        ("GET", "a", None, {NONE: '"a"'}, 304),
        ("HEAD", "a", None, {NONE: '"a"'}, 304),
        ("GET", "a", None, {NONE: 'W/"a"'}, 304),
        ("GET", "W/a", None, {NONE: '"a"'}, 304),
        ("GET", "W/a", None, {NONE: 'W/"a"'}, 304),
        ("GET", "a", None, {NONE: '"b"'}, 200),
        ("GET", "a", None, {NONE: '"b", "a"'}, 304),
        ("GET", "a", None, {NONE: '"b" ,"c",W/"a"'}, 304),
        ("GET", "a,b", None, {NONE: '"a,b"'}, 304),
        ("GET", "a", None, {NONE: '"a,b"'}, 200),
        ("GET", "a", None, {NONE: "*"}, 304),
        ("GET", "", None, {NONE: "*"}, 200),
        ("GET", "", THEN, {NONE: "*"}, 304),
        ("GET", "a", None, {NONE: "a"}, 200),
        ("GET", "a", None, {NONE: ""}, 200),
        ("GET", "", None, {NONE: '""'}, 200),
        ("PUT", "a", None, {NONE: "*"}, 412),
        ("PUT", "", None, {NONE: "*"}, 200),
        ("PUT", "a", None, {NONE: '"a"'}, 412),
        ("PUT", "a", None, {MATCH: '"a"'}, 200),
        ("PUT", "a", None, {MATCH: '"b"'}, 412),
        ("PUT", "a", None, {MATCH: '"b", "a"'}, 200),
        ("PUT", "W/a", None, {MATCH: 'W/"a"'}, 412),
        ("PUT", "a", None, {MATCH: 'W/"a"'}, 412),
        ("PUT", "a", None, {MATCH: "*"}, 200),
        ("PUT", "", None, {MATCH: "*"}, 412),
        ("DELETE", "", None, {MATCH: '"a"'}, 412),
        ("GET", "a", None, {MATCH: '"b"'}, 412),
        ("GET", "a", None, {MATCH: '"a"', NONE: '"a"'}, 304),
        ("GET", "", THEN, {SINCE: DATE}, 304),
        ("GET", "", THEN, {SINCE: LATER}, 304),
        ("GET", "", THEN, {SINCE: EARLIER}, 200),
        ("GET", "", THEN + 0.9, {SINCE: DATE}, 304),
        ("GET", "", None, {SINCE: DATE}, 200),
        ("PUT", "", THEN, {SINCE: DATE}, 200),
        ("GET", "", THEN, {SINCE: "yesterday"}, 200),
        ("GET", "a", THEN, {SINCE: DATE, NONE: '"b"'}, 200),
        ("PUT", "", THEN, {UNTIL: DATE}, 200),
        ("PUT", "", THEN, {UNTIL: EARLIER}, 412),
        ("PUT", "", THEN, {UNTIL: "whenever"}, 200),
        ("PUT", "", None, {UNTIL: DATE}, 200),
        ("PUT", "a", THEN, {UNTIL: EARLIER, MATCH: '"a"'}, 200),
        ("GET", "", datetime(1994, 11, 6, 8, 49, 37, tzinfo=UTC), {SINCE: DATE}, 304),
        ("GET", "", datetime(1994, 11, 6, 10, 49, 37, tzinfo=timezone(timedelta(hours=2))), {SINCE: DATE}, 304),
    ],
)
def test_conditions_of_every_kind(method: str, etag: str, modified: Any, headers: dict[str, str], status: int) -> None:
    assert ask(method, etag, modified, **headers) == status


@pytest.mark.parametrize("etag", ['a"b', "a b", "a\n", "☃", "W/", "\x7f", '"a"'])
def test_invalid_etag_is_an_error(etag: str) -> None:
    with pytest.raises(ValueError, match="an etag is latin-1 text without quotes"):
        validators(etag=etag)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (DATE, THEN),
        ("Sunday, 06-Nov-94 08:49:37 GMT", THEN),
        ("Sun Nov  6 08:49:37 1994", THEN),
        ("Sun, 32 Nov 1994 08:49:37 GMT", None),
        ("Sun, 06 Nov 99999999 08:49:37 GMT", None),
        ("Sun Nov", None),
        ("", None),
        (",", None),
        ("1994-11-06T08:49:37Z", None),
        ("Sun, 06 Nov 1994 08:49:37 GMT" * 100, None),
        ("\u0660", None),
        (None, None),
    ],
)
def test_dates_are_parsed_in_three_forms(text: str | None, seconds: int | None) -> None:
    assert read_date(text) == seconds


def test_many_tags_are_parsed_in_linear_time() -> None:
    assert len(tags_in('"a",' * 2000)) == 2000
    assert tags_in('"a", x, "b"') == ['"a"']
    assert tags_in('"' * 8000) == []


@io_route("/note", methods=["GET", "PUT"])
async def note(request: Request) -> Response:
    if response := precondition(request, etag="v1", last_modified=THEN):
        return response
    return Response("text", headers=validators(etag="v1", last_modified=THEN))


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    with serving(Service(note)) as url, httpx.Client(base_url=url) as client:
        yield client


def test_validators_and_304_of_a_served_route(client: httpx.Client) -> None:
    first = client.get("/note")
    assert (first.headers["etag"], first.headers["last-modified"]) == ('"v1"', DATE)
    again = client.get("/note", headers={"if-none-match": first.headers["etag"]})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", '"v1"')
    assert client.put("/note", headers={"if-match": '"v0"'}).status_code == 412
    assert client.put("/note", headers={"if-match": '"v1"'}).status_code == 200


TEXT = "all work and no play makes Jack a dull boy. " * 100


@io_route("/text", methods=["GET", "PUT"])
async def text(request: Request) -> Response:
    if response := precondition(request, etag="v1"):
        return response
    return Response(TEXT, headers=validators(etag="v1"), content_type="text/markdown")


@cpu_route("/cpu-text", methods=["GET", "PUT"])
def cpu_text(request: Request) -> Response:
    if response := precondition(request, etag="v1"):
        return response
    return Response(TEXT, headers=validators(etag="v1"), content_type="text/markdown")


@pytest.mark.parametrize("path", ["/text", "/cpu-text"])
@pytest.mark.parametrize("accept", ["gzip", "identity"])
@pytest.mark.parametrize("compress", [True, False])
def test_304_has_the_headers_of_the_200(path: str, accept: str, compress: bool) -> None:
    with serving(Service(text, cpu_text), compress=compress, cpu_workers=1) as url:
        fresh = httpx.get(url + path, headers={"accept-encoding": accept})
        tag = fresh.headers["etag"]
        kept = httpx.get(url + path, headers={"accept-encoding": accept, "if-none-match": tag})
        assert kept.status_code == 304
        assert "content-type" not in kept.headers
        assert kept.headers["etag"] == tag == ('W/"v1"' if compress and accept == "gzip" else '"v1"')
        assert kept.headers.get("vary") == fresh.headers.get("vary")
        assert httpx.put(url + path, headers={"if-match": tag}).status_code == 200
        if not compress:
            assert httpx.put(url + path, headers={"if-match": f"W/{tag}"}).status_code == 412
        assert httpx.put(url + path, headers={"if-match": tag.replace("v1", "v0")}).status_code == 412
