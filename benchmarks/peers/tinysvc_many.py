"""tinysvc: $ROUTES io routes, each with a parameter."""

import os

from tinysvc import Service, io_route


def route(number: int) -> object:
    @io_route(f"/part{number}/items/{{item}}")
    async def find(item: int) -> dict[str, int]:
        return {"item": item}

    return find


service = Service(*(route(number) for number in range(int(os.environ["ROUTES"]))))
