"""FastAPI: return types, which it serialises in Rust, as its documentation advises; CPU work in `def`, in threads."""

import work
from fastapi import FastAPI, Response
from pydantic import BaseModel

BLOB = b"x" * 65536

app = FastAPI()


class Message(BaseModel):
    message: str
    answer: int


class Found(BaseModel):
    item: int
    limit: int
    q: str


class Document(BaseModel):
    name: str
    values: list[float]


@app.get("/json")
async def message() -> Message:
    return Message(message="hello", answer=42)


@app.get("/items/{item}")
async def find(item: int, limit: int, q: str) -> Found:
    return Found(item=item, limit=limit, q=q)


@app.get("/blob")
async def blob() -> Response:
    return Response(BLOB, media_type="application/octet-stream")


@app.post("/noop")
def noop(document: Document) -> Document:
    work.noop({})
    return document


@app.post("/noop-here")
async def noop_here(document: Document) -> Document:
    work.noop({})
    return document


@app.post("/burn-here")
async def burn_here(document: Document) -> Document:
    """A careless handler: it blocks the event loop."""
    work.burn({})
    return document


@app.post("/burn")
def burn(document: Document) -> Document:
    work.burn({})
    return document
