"""The cache of a cpu route whose resources take artifacts: a result belongs to the versions that computed it.

    lookup   under the versions that this process serves: the old ones until a swap has ended
    entry    under the versions in the X-Artifact of the response, as only the worker knows them

So a result of an old version, which ends after the swap, is never found; and one of the new version, from a worker that
is renewed first, is found when the swap has ended.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

from ..core.requests import Request
from ..core.responses import Response
from .artifact_labels import HEADER
from .caching import CachedRoute


class VersionedCachedRoute(CachedRoute):
    """A cached route of a service with artifacts.

    Args:
        arguments: As of CachedRoute.
        served: Returns the versions that the route serves now, as in X-Artifact.
        options: As of CachedRoute.
    """

    def __init__(self, *arguments: Any, served: Callable[[], str], **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._served = served

    def _key(self, request: Request, body: bytes) -> Hashable:
        return self._served(), super()._key(request, body)

    def _entry_key(self, key: Hashable, response: Response) -> Hashable:
        assert isinstance(key, tuple)
        return next((value for name, value in response.headers if name == HEADER), ""), key[1]
