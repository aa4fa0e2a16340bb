"""The worker's side of a candidate: a version of an artifact that is tried beside the one that serves.

The endpoint of a candidate responds to requests as any other does (`share`). Besides, it gets requests whose clients
have their response already (`shadow`): it computes them, compares the two responses, and discards its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import isfinite
from time import perf_counter
from typing import Any

import orjson

from ..binding.inputs import Body
from ..core.errors import UnencodableResult
from ..pool.frames import ErrorText
from ..pool.program import JobFunction, Reply
from ..pool.remote_errors import error_text
from ..wire.codings import decompress_body
from .cpu_messages import BatchMessage, ResponseHead, ShadowMessage, ShadowReply
from .endpoint_parts import Endpoint


def compared(respond: JobFunction, endpoint: Endpoint | None) -> JobFunction:
    """`respond`, which takes a ShadowMessage, too.

    Args:
        respond: Responds to the requests of the candidate's endpoint.
        endpoint: The endpoint; None if this worker does not have the candidate.
    """

    def run_job(meta: Any, body: Body) -> Reply:
        if type(meta) is not ShadowMessage:
            return respond(meta, body)
        return Reply(ShadowReply(0.0, 0) if endpoint is None else _shadow(respond, endpoint, meta, body), b"")

    return run_job


def _shadow(respond: JobFunction, endpoint: Endpoint, message: ShadowMessage, body: Body) -> ShadowReply:
    began = perf_counter()
    try:
        head, content = _response(respond, endpoint, message, body[: message.size])
    except MemoryError:  # the worker's state is unknown; it is replaced
        raise
    except Exception as error:
        return ShadowReply(perf_counter() - began, 500, None, error_text(error))
    reply = ShadowReply(perf_counter() - began, 500 if head is None else head.status)
    if isinstance(content, ErrorText):
        reply.failure = content
    elif head is not None and head.status < 300 and endpoint.candidate is not None and endpoint.candidate.compare:
        served = decompress_body(message.coding, body[message.size :], endpoint.max_body_size)
        try:
            compare = endpoint.candidate.compare
            reply.difference = _difference(
                compare, _value(message.content_type, served), _value(head.content_type, content)
            )
        except MemoryError:
            raise
        except Exception as error:
            reply.failure = error_text(error)
    return reply


def _response(
    respond: JobFunction, endpoint: Endpoint, message: ShadowMessage, body: Body
) -> tuple[ResponseHead | None, bytes | ErrorText]:
    """The head and the content of the candidate's response, or None and its error."""
    if endpoint.batch is None:
        reply = respond(message.request, body)
        head, content = reply.meta, reply.body
    else:
        reply = respond(BatchMessage(message.endpoint, [message.request], [len(body)]), body)
        (part,) = reply.meta.parts
        head, content = part.head, part.error or reply.body
    if isinstance(content, Iterator):
        raise UnencodableResult("the response is a stream, which is not compared; use share= instead of shadow=")
    return head, content if isinstance(content, ErrorText) else bytes(content)


def _value(content_type: str | None, content: bytes | ErrorText) -> Any:
    """What `compare` gets: what a JSON content means, a text, or bytes."""
    assert not isinstance(content, ErrorText)
    kind = (content_type or "").partition(";")[0].strip().lower()
    if kind == "application/json" or kind.endswith("+json"):
        return orjson.loads(content)
    return content.decode() if kind.startswith("text/") else content


def _difference(compare: Callable[[Any, Any], float], served: Any, candidate: Any) -> float:
    found = float(compare(served, candidate))
    if not isfinite(found):
        raise ValueError(f"{compare.__qualname__} returned {found}; a finite number was expected")
    return found
