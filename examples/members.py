"""Who is asking? Sign in for a token, and show it. Try:

    curl -d '{"name": "ada", "password": "lovelace"}' -H 'content-type: application/json' \\
         http://127.0.0.1:8000/members/tokens
    curl -H 'authorization: Bearer TOKEN' http://127.0.0.1:8000/members/me

A password is compared by scrypt, which is slow on purpose: a `cpu_route`. A token is looked at for each request that
asks for `member`, a resource of the request. Tokens are signed with the variable MEMBERS_SECRET; without it they are
good until the server stops.
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
"""Seconds that a token is good for."""


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
    """The secret for a worker, which is given what belongs to the request, and not what lives on the loop."""
    return secret


@io_resource
async def member(token: Annotated[str, Bearer()], secret: bytes) -> Member:
    """Who is asking; 401 for a token that is not ours, or too old."""
    name, _, rest = token.partition(".")
    until, _, _ = rest.partition(".")
    if not hmac.compare_digest(token.encode(), signed(name, until, secret).encode()) or float(until) < time.time():
        raise HTTPError(401, "This token is not good; sign in.", headers=[("www-authenticate", "Bearer")])
    return Member(name)


@cpu_resource
def accounts() -> Iterator[dict[str, bytes]]:
    """Salt and hash of each: a table of a database, elsewhere."""
    yield {name: hashed(password, os.urandom(16)) for name, password in [("ada", "lovelace"), ("grace", "hopper")]}


@cpu_route("/tokens", methods=["POST"], timeout=5.0, limit=1, responses={401: "Name or password are wrong."})
def sign_in(credentials: Credentials, accounts: dict[str, bytes], signature: bytes) -> Token:
    """A token for who knows the password. Whoever is not known waits as long."""
    kept = accounts.get(credentials.name, bytes(80))
    if not hmac.compare_digest(kept, hashed(credentials.password, kept[:16])):
        raise HTTPError(401, "Name or password are wrong.", headers=[("www-authenticate", "Bearer")])
    return Token(signed(credentials.name, f"{time.time() + LIFETIME:.0f}", signature), LIFETIME)


@io_route("/me")
async def me(member: Member) -> Member:
    """Who is asking."""
    return member


def hashed(password: str, salt: bytes) -> bytes:
    return salt + scrypt(password.encode(), salt=salt, n=2**14, r=8, p=1)


def signed(name: str, until: str, secret: bytes) -> str:
    text = f"{name}.{until}"
    return f"{text}.{hmac.digest(secret, text.encode(), 'sha256').hex()}"
