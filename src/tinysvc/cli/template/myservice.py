"""Scores how kind a text is. Start it with `make run`, and try it on http://127.0.0.1:8000/docs."""

from dataclasses import dataclass

from tinysvc import cpu_resource, cpu_route, io_route


@dataclass
class Text:
    text: str


@dataclass
class Score:
    words: int
    score: float


@io_route("/hello/{name}")
async def hello(name: str) -> str:
    """Greet a person. This handler computes almost nothing, so it runs on the event loop."""
    return f"hello {name}"


@cpu_resource
def model() -> dict[str, float]:
    """The score of each word: loaded once in each worker, before its first request."""
    return {"good": 1.0, "kind": 1.0, "bad": -1.0, "rude": -1.0}


@cpu_route("/score", methods=["POST"], timeout=5.0)
def score(body: Text, model: dict[str, float]) -> Score:
    """Score a text from -1 to 1. This handler computes, so it runs in a worker process."""
    words = body.text.lower().split()
    worth = sum(model.get(word, 0.0) for word in words)
    return Score(len(words), worth / max(len(words), 1))
