"""The check of the store of models at start-up: does it create a key only once?

A store that overwrites would let two publishers take the same number for two versions. It is refused before the service
publishes anything, and before it serves versions that may change.
"""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path

from ..core.settings import Settings
from ..core.threads import in_thread
from ..models.errors import StoreUnavailable
from ..models.models import opened
from ..models.object_urls import is_object_url

log = logging.getLogger("tinysvc.models")


async def check_store(settings: Settings) -> None:
    """Probe the store by two creations. A folder that does not exist yet is not made for this.

    Raises:
        ConfigurationError: The store cannot be opened, or ignores create-if-absent (`StoreRefused`).
    """
    await in_thread(partial(_check, settings))


def _check(settings: Settings) -> None:
    store = opened(settings.models, tuple(settings.models_keys.split()), settings.models_signing_key)
    if not is_object_url(settings.models) and not Path(settings.models).expanduser().is_dir():
        return
    try:
        store.probe()
    except StoreUnavailable as error:
        log.warning("the store of models was not checked at the start: %s", error)
