"""document.py: the document is valid and unique in its ids, and the examples respond as it says."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import hypothesis
import pytest
import schemathesis
from openapi_spec_validator import validate
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from example_models import store_with_models
from openapi_cases import Item, described, operation, put_order, tenant, user
from tinysvc import (
    Service,
    io_route,
)
from tinysvc.core.settings import Settings
from tinysvc.openapi.document import document
from tinysvc.openapi.page import openapi_json
from tinysvc.server.loading import load_service
from tinysvc.service.plan import plans_of
from tinysvc.testing import serving

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_docstring_and_tags_describe_the_operation() -> None:
    found = operation(put_order, user, tenant, path="/orders/{number}", method="put")
    assert (found["summary"], found["description"]) == ("Write an order.", "All of it, as *one*.")
    assert (found["operationId"], found["tags"]) == ("put_order", ["shop"])
    assert found["x-tinysvc"] == {"kind": "io"}


def test_components_hold_schemas_and_security_schemes() -> None:
    components = described(put_order, user, tenant)["components"]
    assert set(components["schemas"]) == {"Problem", "Order", "Item", "Colour"}
    assert components["schemas"]["Item"]["description"] == "One of several."
    assert components["schemas"]["Item"]["properties"]["name"]["examples"] == ["nail"]
    assert "description" not in components["schemas"]["Order"]  # the one that dataclass makes by itself
    assert components["securitySchemes"] == {"bearer": {"type": "http", "scheme": "bearer"}}


@io_route("/things/{first}/parts/{second}")
async def read_part(first: int, second: str) -> None: ...


@io_route("/things/{thing}/parts/{part}", methods=["PUT"])
async def put_part(part: str, thing: int, first: str) -> None: ...


def test_paths_with_other_parameter_names_are_one_path() -> None:
    ((path, operations),) = described(read_part, put_part)["paths"].items()
    assert path == "/things/{first}/parts/{second}"
    assert [(each["name"], each["in"]) for each in operations["put"]["parameters"]] == [
        ("second", "path"),
        ("first", "path"),
        ("first", "query"),
    ]


@io_route("/limited", limit=3, timeout=2)
async def limited() -> str:
    return ""


@io_route("/a", methods=["GET", "POST"])
@io_route("/b")
async def stacked() -> None: ...


def test_operation_ids_are_unique() -> None:
    paths = described(Service(stacked, prefix="/x", name="x"), Service(stacked, limited, prefix="/y", name="y"))[
        "paths"
    ]
    names = [each["operationId"] for path in paths.values() for each in path.values()]
    assert len(set(names)) == len(names) == 7
    assert "limited" in names
    assert {each["tags"][0] for path in paths.values() for each in path.values()} == {"x", "y"}


def test_info_of_the_service() -> None:
    assert described(limited)["info"] == {"title": "tinysvc", "version": "0"}
    service = Service(limited, name="shop", description="Sells.", version="1.2")
    info = document(service, plans_of(service), Settings())["info"]
    assert info == {"title": "shop", "description": "Sells.", "version": "1.2"}
    service = Service(sys.modules[__name__], name="tests")
    assert (service.name, service.version) == ("tests", "0")
    assert service.description.startswith("document.py: the document")


class Odd:
    def __str__(self) -> str:
        raise RuntimeError("no text")


@io_route("/big/{key}")
async def with_big_default(key: str, limit: int = 2**64) -> int:
    """Say it."""
    return limit


@io_route("/odd/{key}", methods=["POST"], example=Odd())
async def with_odd_example(key: str, item: Item) -> None: ...


def test_undescribable_operation_does_not_stop_a_service(caplog: pytest.LogCaptureFixture) -> None:
    with serving(Service(with_big_default, with_odd_example)) as url:
        paths = httpx.get(f"{url}/openapi.json").json()["paths"]
    assert paths["/big/{key}"]["get"]["parameters"][1]["schema"]["default"] == 2**64
    assert paths["/odd/{key}"]["post"]["parameters"][0]["name"] == "key"
    assert "POST /odd/{key} is described by its path only" in caplog.text


# The document as it is served


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    sys.modules.pop("gallery", None)
    models = store_with_models(tmp_path_factory.mktemp("models"))
    with serving(str(EXAMPLES), cpu_workers=2, models=models) as url:
        yield url


def test_document_is_served(url: str) -> None:
    response = httpx.get(f"{url}/openapi.json")
    assert response.headers["content-type"] == "application/json"
    validate(response.json())
    again = httpx.get(f"{url}/openapi.json", headers={"if-none-match": response.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    services = {path.stem for path in [*EXAMPLES.glob("*.py"), *EXAMPLES.glob("office/[a-z]*.py")]}
    assert {tag["name"] for tag in response.json()["tags"]} == services | {"classifier", "filetypes", "training"}


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("[a-z]*")), ids=lambda path: path.stem)
def test_document_of_each_example_is_valid(path: Path) -> None:
    service = load_service(str(path))
    validate(json.loads(openapi_json(service, plans_of(service), Settings())))


def test_document_can_be_disabled_or_replaced() -> None:
    @io_route("/openapi.json")
    async def own() -> str:
        return "mine"

    with serving(Service(limited), docs=False) as url:
        assert httpx.get(f"{url}/openapi.json").status_code == 404
    with serving(Service(own)) as url:
        assert httpx.get(f"{url}/openapi.json").text == "mine"


CASES = int(os.environ.get("SCHEMATHESIS_CASES", "4"))
"""Requests for each operation; a higher number tests more."""

EXCLUDED = (
    r"/users/(measure|chart)|/chat/rooms/|/hello/primes/|/live/ticks|/office/(orders/order|orders/walk|pricing/quote)"
)
"""Excluded paths: measurements of the machine, a WebSocket, a computation until its deadline, a slow stream, and
services that fail or take long when the request says so."""


def check_response(case: schemathesis.Case[Any]) -> None:
    response = case.call()
    checks = [status_code_conformance, content_type_conformance]
    if (
        "text/event-stream" not in response.headers.get("content-type", [""])[0]
    ):  # of these it compares events, not the text
        checks.append(response_schema_conformance)
    if response.status_code not in (503, 504):  # documented for routes that may respond so
        checks.append(not_a_server_error)
    case.validate_response(response, checks=checks)


@pytest.mark.parametrize("mode", [schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE])
def test_examples_respond_as_documented(url: str, mode: schemathesis.GenerationMode) -> None:
    """Valid and invalid requests get a documented status, and never a 500."""
    few = hypothesis.settings(
        max_examples=CASES,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    tested = 0
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json").exclude(path_regex=EXCLUDED)
    for found in schema.get_all_operations():
        assert isinstance(found, Ok)
        cases = found.ok().as_strategy(generation_mode=mode)
        try:
            few(hypothesis.given(cases)(check_response))()
        except hypothesis.errors.Unsatisfiable:
            continue  # no invalid request exists
        tested += 1
    assert tested > 10
