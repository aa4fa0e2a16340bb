"""open_calls.py: the end of an RPC by its client's clock. The rest is tested with a server, in test_rpc_*.py."""

from __future__ import annotations

from time import monotonic
from typing import cast

from tinysvc.grpc.open_calls import AT_DEADLINE, CalledMethod, OpenCall


def test_client_that_cancels_at_its_own_deadline_is_late() -> None:
    """Its clock started before the server's."""

    def call(time_limit: float | None) -> OpenCall:
        return OpenCall(cast(CalledMethod, None), b"", None, (), time_limit=time_limit)

    now = monotonic()
    assert call(now).is_at_deadline()
    assert call(now + AT_DEADLINE).is_at_deadline()
    assert not call(now + AT_DEADLINE + 60).is_at_deadline()
    assert not call(None).is_at_deadline()
