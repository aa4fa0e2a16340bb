"""Authentication: sign in to get a token, then send the token. Try:

    curl -d '{"name": "ada", "password": "lovelace"}' -H 'content-type: application/json' \\
         http://127.0.0.1:8000/members/tokens
    curl -H 'authorization: Bearer TOKEN' http://127.0.0.1:8000/members/me

scrypt compares passwords, and is slow on purpose, so this is a `cpu_route`. `member` is a resource of the request: it
checks the token of each request that needs it. The variable MEMBERS_SECRET is the key that signs tokens; without it,
tokens are valid until the server stops.
"""

import hmac
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import scrypt
from typing import Annotated

from tinysvc import Bearer, HTTPError, Request, cpu_resource, cpu_route, io_resource, io_route

LIFETIME = 3600.0
"""Seconds for which a token is valid."""


@dataclass
class Credentials:
    name: str
    password: str


@dataclass
class Token:
    token: str
    seconds: float


@dataclass
class Member:
    name: str


@io_resource
async def secret() -> bytes:
    return os.environ.get("MEMBERS_SECRET", "").encode() or os.urandom(32)


@io_resource
async def signature(request: Request, secret: bytes) -> bytes:
    """The secret for a worker. A worker gets resources of the request, but not resources of the event loop."""
    return secret


@io_resource
async def member(token: Annotated[str, Bearer()], secret: bytes) -> Member:
    """The member who sends the request; 401 for an invalid or expired token."""
    name, _, rest = token.partition(".")
    until, _, _ = rest.partition(".")
    if not hmac.compare_digest(token.encode(), signed(name, until, secret).encode()) or float(until) < time.time():
        raise HTTPError(401, "This token is invalid or expired; sign in.", headers=[("www-authenticate", "Bearer")])
    return Member(name)


@cpu_resource
def accounts() -> Iterator[dict[str, bytes]]:
    """Salt and hash of each password. A real service would use a database."""
    yield {name: hashed(password, os.urandom(16)) for name, password in [("ada", "lovelace"), ("grace", "hopper")]}


@cpu_route("/tokens", methods=["POST"], timeout=5.0, limit=1, responses={401: "The name or the password is wrong."})
def sign_in(credentials: Credentials, accounts: dict[str, bytes], signature: bytes) -> Token:
    """A token in exchange for the password. An unknown name takes the same time."""
    kept = accounts.get(credentials.name, bytes(80))
    if not hmac.compare_digest(kept, hashed(credentials.password, kept[:16])):
        raise HTTPError(401, "The name or the password is wrong.", headers=[("www-authenticate", "Bearer")])
    return Token(signed(credentials.name, f"{time.time() + LIFETIME:.0f}", signature), LIFETIME)


@io_route("/me")
async def me(member: Member) -> Member:
    """The member who sends the request."""
    return member


def hashed(password: str, salt: bytes) -> bytes:
    return salt + scrypt(password.encode(), salt=salt, n=2**14, r=8, p=1)


def signed(name: str, until: str, secret: bytes) -> str:
    text = f"{name}.{until}"
    return f"{text}.{hmac.digest(secret, text.encode(), 'sha256').hex()}"
