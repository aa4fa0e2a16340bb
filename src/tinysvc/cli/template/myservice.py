"""Is a text kind? `make run`, then open http://127.0.0.1:8000/docs and try it."""

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
    """Greet somebody: it only waits, so it runs on the event loop."""
    return f"hello {name}"


@cpu_resource
def model() -> dict[str, float]:
    """What each word is worth: loaded once in each worker, before its first request."""
    return {"good": 1.0, "kind": 1.0, "bad": -1.0, "rude": -1.0}


@cpu_route("/score", methods=["POST"], timeout=5.0)
def score(body: Text, model: dict[str, float]) -> Score:
    """Score a text, from -1 to 1: it computes, so it runs in a worker process."""
    words = body.text.lower().split()
    worth = sum(model.get(word, 0.0) for word in words)
    return Score(len(words), worth / max(len(words), 1))
