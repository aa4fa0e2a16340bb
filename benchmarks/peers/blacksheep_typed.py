"""BlackSheep, as its documentation advises: pydantic for validation, and a Response of bytes that orjson makes.

Dataclasses would be slower to bind, and an error would not name the place.
"""

from dataclasses import dataclass

import orders
import orjson
from blacksheep import Application, Content, FromJSON, Response, post
from blacksheep.settings.json import json_settings
from pydantic import BaseModel

json_settings.use(loads=orjson.loads)
app = Application()

Order, _, _ = orders.declare(BaseModel)
_, _, receipt_of = orders.declare(decorator=dataclass)


@post("/orders")
async def place(document: FromJSON[Order]) -> Response:
    return Response(200, None, Content(b"application/json", orjson.dumps(receipt_of(document.value))))
