"""FastAPI: pydantic models, and a return type, which makes it serialise in Rust."""

import orders
from fastapi import FastAPI
from pydantic import BaseModel

app = FastAPI()

Order, Receipt, receipt_of = orders.declare(BaseModel)


@app.post("/orders")
async def place(order: Order) -> Receipt:
    return receipt_of(order)
