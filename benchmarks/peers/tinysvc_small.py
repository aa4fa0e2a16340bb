"""tinysvc: the smallest service with both kinds of route."""

from tinysvc import cpu_route, io_route


@io_route("/json")
async def message() -> dict[str, object]:
    return {"message": "hello", "answer": 42}


@cpu_route("/square/{number}")
def square(number: int) -> int:
    return number * number
