"""route_options.py: wrong options of the decorators are refused with their remedy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tinysvc.core.errors import ConfigurationError
from tinysvc.service.decorators import cpu_route, io_resource, io_route
from tinysvc.service.routes import Batch, recorded


def handler() -> None: ...


def test_wrong_options_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="timeout must be a number of seconds, 0 or more, not -1"):
        cpu_route("/", timeout=-1)(handler)
    with pytest.raises(ConfigurationError, match='takes "cancel" or "finish"'):
        cpu_route("/", on_disconnect="maybe")(handler)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match='takes "cancel" or "finish"'):
        io_route("/", on_disconnect="maybe")(handler)  # type: ignore[arg-type]
    for size in (-1, True, "1"):
        with pytest.raises(ConfigurationError, match="max_body_size must be a whole number of bytes, 0 or more, not"):
            io_route("/", max_body_size=size)(handler)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="is not a function"):
        io_resource(len)
    with pytest.raises(ConfigurationError, match="methods is empty"):
        io_route("/", methods=[])(lambda: None)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"pool": ""}, "pool takes the name of a pool, as in pool=\"training\", not ''"),
        ({"pool": None}, "pool takes the name of a pool"),
        ({"limit": 0}, "limit must be a whole number, 1 or more, not 0"),
        ({"limit": True}, "limit must be a whole number"),
        ({"limit": 1.5}, "limit must be a whole number"),
        ({"batch": 32}, r"batch takes a Batch, as in batch=Batch\(size=32\), not 32"),
        ({"batch": Batch(size=0)}, "the size of a batch is a whole number, 1 or more, not 0"),
        ({"batch": Batch(size=2.0)}, "the size of a batch"),  # type: ignore[arg-type]
        ({"batch": Batch(wait=-1)}, "the wait of a batch is a number of seconds, 0 or more, not -1"),
        ({"batch": Batch(wait=float("nan"))}, "the wait of a batch"),
        ({"batch": Batch(wait="1")}, "the wait of a batch"),  # type: ignore[arg-type]
    ],
)
def test_wrong_options_of_a_cpu_route_are_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"handler \(.*test_route_options\.py:[0-9]+\): {says}"):
        cpu_route("/", **options)(handler)


def test_generator_takes_no_batch() -> None:
    def items() -> Iterator[int]:
        yield 1

    with pytest.raises(
        ConfigurationError,
        match=r"streams, but a batch has no streams; .* leave out batch=",
    ):
        cpu_route("/", batch=Batch())(items)


def test_idempotence_follows_from_the_methods_unless_it_is_declared() -> None:
    def of(methods: list[str], **options: Any) -> bool:
        def own() -> None: ...

        return recorded(cpu_route("/", methods=methods, **options)(own))[0].idempotent  # type: ignore[union-attr]

    assert of(["GET"])
    assert of(["PUT", "DELETE"])
    assert not of(["POST"])
    assert not of(["GET", "POST"])
    assert of(["POST"], idempotent=True)
    assert not of(["GET"], idempotent=False)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"idempotent": "yes"}, "idempotent takes True or False, not 'yes'"),
        ({"hedge": 0}, "hedge must be a number of seconds, more than 0, not 0"),
        ({"hedge": "1"}, "hedge must be a number of seconds"),
        ({"methods": ["POST"], "hedge": 0.1}, "say idempotent=True if that is safe"),
        ({"hedge": 0.1, "idempotent": False}, "say idempotent=True if that is safe"),
    ],
)
def test_only_idempotent_routes_have_a_hedge(options: dict[str, Any], says: str) -> None:
    for route in (io_route, cpu_route):
        with pytest.raises(ConfigurationError, match=says):
            route("/", **options)(handler)
    assert recorded(io_route("/", methods=["POST"], idempotent=True, hedge=1)(lambda: None))[0].hedge == 1.0  # type: ignore[union-attr]
