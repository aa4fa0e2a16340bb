"""form_bodies.py: a whole form as one value, and its files; other types are refused at start-up."""

from __future__ import annotations

from typing import Annotated, Any

import pytest

from binding_cases import request
from tinysvc import ConfigurationError, Form, Service, UploadFile, io_route
from tinysvc.binding.binder import Binder
from tinysvc.core.errors import BindingError
from tinysvc.core.form_data import FormData


def test_form_and_json_are_two_bodies() -> None:
    @io_route("/x", methods=["POST"])
    async def handler(file: UploadFile, body: dict[str, int]) -> None: ...

    with pytest.raises(ConfigurationError, match="both file and body take the body"):
        Binder(handler)


@pytest.mark.parametrize("annotation", [Annotated[dict[str, Any], Form()], Annotated[list[dict[str, int]], Form()]])
def test_type_that_is_not_a_form_is_refused(annotation: Any) -> None:
    async def handler(form) -> None: ...  # type: ignore[no-untyped-def]

    handler.__annotations__["form"] = annotation
    with pytest.raises(ConfigurationError, match=r"handler.*form.*dataclass"):
        Binder(handler)


def test_marker_as_a_default_is_refused() -> None:
    async def handler(a: str = Form()) -> None: ...  # type: ignore[assignment]

    with pytest.raises(ConfigurationError, match=r"write it as a: Annotated\[str, Form\(\)\]"):
        Service(io_route("/x")(handler)) and Binder(handler)


def test_faults_name_the_fields_of_a_form() -> None:
    def handler(file: UploadFile, files: list[UploadFile], ticked: Annotated[bool, Form()]) -> None: ...

    given = request()
    given.form_data = FormData(fields={"file": ["text"]})
    with pytest.raises(BindingError) as raised:
        Binder(handler).bind(given, b"", {})
    assert raised.value.faults == [
        ("form.file", "is a text, but a file was expected: send it with a filename"),
    ]
    given.form_data = FormData()
    with pytest.raises(BindingError) as raised:
        Binder(handler).bind(given, b"", {})
    assert raised.value.faults == [("form.file", "is missing: a file was expected")]
