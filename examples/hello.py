"""Both kinds of route. Try: curl 'http://127.0.0.1:8000/hello/Ada?punctuation=.'"""

from tinysvc import cpu_route, io_route


@io_route("/{name}")
async def hello(name: str, punctuation: str = "!") -> dict[str, str]:
    """Greet a person. This does not compute, so it runs on the event loop."""
    return {"message": f"hello {name}{punctuation}"}


@cpu_route("/primes/{below}", timeout=5.0)
def primes(below: int) -> list[int]:
    """The primes below a number. This computes, so it runs in a worker process."""
    return [n for n in range(2, below) if all(n % d for d in range(2, int(n**0.5) + 1))]
