"""The URL of a bucket becomes an `ObjectStorage`: s3://bucket/prefix, gs://bucket/prefix, az://container/prefix.

Addresses, regions and credentials come from the variables that the services' own tools read. A URL never has them: it
is in logs and in command lines.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

from ..core.errors import ConfigurationError
from ..core.optional_libraries import missing_library
from .object_storage import ObjectStorage

if TYPE_CHECKING:
    from .object_storage import Bucket

URL = re.compile(
    r"(?P<scheme>[a-z0-9+.-]+)://(?P<bucket>[A-Za-z0-9][A-Za-z0-9._-]{1,254})(?P<prefix>(?:/[\w.=+ -]+)*)/?"
)


class Service(NamedTuple):
    """An object store."""

    client: str
    """The name of its class in obstore."""
    remedy: str
    """The variables that it needs."""


SERVICES = {
    "s3": Service(
        "S3Store",
        "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION, and AWS_ENDPOINT_URL if it is not Amazon's own",
    ),
    "gs": Service("GCSStore", "GOOGLE_APPLICATION_CREDENTIALS"),
    "az": Service("AzureStore", "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY"),
}
"""By the scheme of the URL."""


def is_object_url(url: str) -> bool:
    """Whether a store is a bucket, and no local folder."""
    return "://" in url


def object_storage(url: str, environ: Mapping[str, str] | None = None) -> ObjectStorage:
    """The storage of a URL. Nothing is sent yet.

    Raises:
        ConfigurationError: The URL has another form, or obstore is not installed.
    """
    environ = os.environ if environ is None else environ
    scheme = url.partition("://")[0]
    if scheme not in SERVICES:
        known = ", ".join(f"{each}://" for each in SERVICES)
        raise ConfigurationError(f"a store of models is a folder or a URL with {known}, not {scheme}://")
    found = URL.fullmatch(url)
    if found is None:
        raise ConfigurationError(
            f"the URL of a store is {scheme}://BUCKET/PREFIX, as in {scheme}://company/models, without credentials or "
            f"a query; they are variables: {SERVICES[scheme].remedy}"
        )
    if missing := missing_library("obstore"):
        raise ConfigurationError(missing)
    service = SERVICES[scheme]
    prefix = found["prefix"].strip("/")

    def make_bucket(retries: dict[str, Any], client: dict[str, Any]) -> Bucket:
        import obstore.store
        from obstore.exceptions import BaseError

        options = {**client, "allow_http": True} if _is_plain(environ) else client
        try:
            make: Any = getattr(obstore.store, service.client)
            return make(  # type: ignore[no-any-return]
                found["bucket"],
                prefix=prefix or None,
                retry_config=retries,
                client_options=options,
                **(_of_profile(environ) if scheme == "s3" else {}),
            )
        except (BaseError, ValueError) as error:
            reason = str(error).partition("\n")[0]
            raise ConfigurationError(f"the store {url} cannot be used: {reason}; check {service.remedy}") from None

    return ObjectStorage(
        f"{scheme}://{found['bucket']}" + (f"/{prefix}" if prefix else ""), service.remedy, make_bucket
    )


def _of_profile(environ: Mapping[str, str]) -> dict[str, Any]:
    """The credentials of a profile in ~/.aws, which obstore leaves to boto3."""
    profile = environ.get("AWS_PROFILE")
    if not profile or environ.get("AWS_ACCESS_KEY_ID"):
        return {}
    try:
        boto3: Any = import_module("boto3")
        provider: Any = import_module("obstore.auth.boto3")
        session = boto3.Session(profile_name=profile)
    except ImportError as error:
        raise ConfigurationError(
            f"AWS_PROFILE is {profile}, and profiles need the boto3 library ({error}); pip install boto3, or set "
            f"{SERVICES['s3'].remedy}"
        ) from None
    except Exception as error:
        raise ConfigurationError(f"AWS_PROFILE is {profile}, but {error}") from None
    return {"credential_provider": provider.Boto3CredentialProvider(session)}


def _is_plain(environ: Mapping[str, str]) -> bool:
    """Whether an endpoint without TLS is asked for by its address."""
    return any(
        value.startswith("http://")
        for name, value in environ.items()
        if name.startswith(("AWS_ENDPOINT", "AZURE_STORAGE_ENDPOINT", "GOOGLE_ENDPOINT", "GOOGLE_BASE_URL"))
    )
