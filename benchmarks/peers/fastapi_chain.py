"""FastAPI: a service of a chain. With $CALLEE it calls the next one by httpx; without, it computes in a thread."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import chain_job
import httpx
from fastapi import FastAPI
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel

CALLEE = os.environ.get("CALLEE", "")
IN_BODY = os.environ.get("CALLEE_READS", "") == "body"
"""Whether the callee reads its parameter from the body (BentoML), and not from the query."""


class Message(BaseModel):
    message: str
    answer: int


@asynccontextmanager
async def opened(app: FastAPI) -> AsyncIterator[None]:
    async with httpx.AsyncClient(timeout=60) as client:
        app.state.client = client
        yield


app = FastAPI(lifespan=opened)


@app.get("/json")
async def message() -> Message:
    return Message(message="hello", answer=42)


@app.post("/compute")
async def compute(key: str) -> str:
    if not CALLEE:
        return await run_in_threadpool(chain_job.compute, key)
    parameters = {"json": {"key": key}} if IN_BODY else {"params": {"key": key}}
    answer = await app.state.client.post(f"{CALLEE}/compute", **parameters)
    answer.raise_for_status()
    return answer.text
