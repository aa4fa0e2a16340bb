"""FastAPI: return types, which it serialises in Rust, as its documentation advises; CPU work in `def`, in threads."""

import work
from fastapi import FastAPI
from pydantic import BaseModel

app = FastAPI()


class Message(BaseModel):
    message: str
    answer: int


class Document(BaseModel):
    name: str
    values: list[float]


@app.get("/json")
async def message() -> Message:
    return Message(message="hello", answer=42)


@app.post("/noop")
def noop(document: Document) -> Document:
    work.noop({})
    return document


@app.post("/burn")
def burn(document: Document) -> Document:
    work.burn({})
    return document
