"""tinysvc: one io route."""

from tinysvc import io_route


@io_route("/json")
async def message() -> dict[str, object]:
    return {"message": "hello", "answer": 42}
