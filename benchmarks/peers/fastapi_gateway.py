"""FastAPI and httpx: a route that makes one call. The address of the callee is in $CALLEE."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
from fastapi import FastAPI
from pydantic import BaseModel


class Order(BaseModel):
    number: int
    lines: list[float]


class Price(BaseModel):
    number: int
    total: float


class Message(BaseModel):
    message: str
    answer: int


@asynccontextmanager
async def opened(app: FastAPI) -> AsyncIterator[None]:
    async with httpx.AsyncClient(base_url=os.environ["CALLEE"], limits=httpx.Limits(max_connections=None)) as client:
        app.state.client = client
        yield


app = FastAPI(lifespan=opened)


@app.get("/json")
async def message() -> Message:
    return Message(message="hello", answer=42)


@app.post("/price")
async def price(order: Order) -> Price:
    answer = await app.state.client.post("/price", json=order.model_dump())
    answer.raise_for_status()
    return Price.model_validate_json(answer.content)
