"""Robyn, a server in Rust: one process, one worker; `def`, which it advises for handlers that wait for nothing.

It writes JSON by orjson, and leaves %20 in a query as it is.
"""

import logging
import sys
from urllib.parse import unquote_plus

from robyn import Request, Response, Robyn

BLOB = b"x" * 65536

app = Robyn(__file__)


@app.get("/json")
def message() -> dict[str, object]:
    return {"message": "hello", "answer": 42}


@app.get("/items/:item")
def find(request: Request) -> dict[str, object]:
    query = request.query_params
    return {
        "item": int(request.path_params["item"]),
        "limit": int(query.get("limit", "")),
        "q": unquote_plus(query.get("q", "")),
    }


@app.get("/blob")
def blob() -> Response:
    return Response(200, {"content-type": "application/octet-stream"}, BLOB)


if __name__ == "__main__":
    logging.disable()
    app.start(host="127.0.0.1", port=int(sys.argv[1]))
