"""Path and query of an RPC's request, for code that reads them there: middleware, and resources of the request.

The handler itself takes its parameters from the message. Most routes have no such code, and then nothing is done.
"""

from __future__ import annotations

from collections.abc import Callable

from ..binding.message_binder import fault_of
from ..binding.outgoing import RequestWriter
from ..core.errors import BindingError, UnencodableResult
from ..core.requests import Request
from ..runtime.messages import Messages
from ..service.plan import Plan
from ..service.resources import binders_of

Fill = Callable[[Request, bytes], None]


def target_filler(plan: Plan, messages: Messages) -> Fill | None:
    """A function that gives a request the path and the query that the message stands for; None: no code reads them.

    It raises BindingError for a value that cannot stand there.
    """
    binders = binders_of(plan.request_resources, {*plan.server_resources, *plan.request_resources})
    takes_request = any(binder.takes_request for binder in (plan.binder, *binders))
    beside = [each for binder in binders for each in binder.inputs if each.place in ("path", "query")]
    own = [each for each in plan.binder.inputs if each.place in ("path", "query")]
    if not beside and not (own and (plan.middleware or takes_request)):
        return None
    known = {each.parameter: each for each in (*beside, *own)}
    writer = RequestWriter(plan.route.function, "POST", plan.path, known.values())
    decode = messages.codec.decode_arguments

    def fill(request: Request, message: bytes) -> None:
        arguments = {name: value for name, value in decode(message).items() if name in known}
        faults = [
            (name, fault)
            for name, value in arguments.items()
            if type(value) is str and (fault := fault_of(value, known[name].place))
        ]
        if faults:
            raise BindingError(faults)
        try:
            target = writer.write(arguments).target
        except (ValueError, UnencodableResult) as error:
            raise BindingError([("path", str(error))]) from None
        request.raw_path, _, request.raw_query = target.partition("?")
        request.path_params = {
            name: str(value) for name, value in arguments.items() if known[name].place == "path"
        } or None

    return fill
