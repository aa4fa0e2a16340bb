"""FastAPI: one route that waits, one that computes; each as `def`, in threads, and as `async def`, on the loop."""

import asyncio
import time

import work
from fastapi import FastAPI

app = FastAPI()


@app.get("/wait")
def wait() -> dict[str, bool]:
    time.sleep(work.TURN)
    return {"waited": True}


@app.post("/compute")
def compute() -> dict[str, bool]:
    return work.compute()


@app.get("/async/wait")
async def wait_on_loop() -> dict[str, bool]:
    await asyncio.sleep(work.TURN)
    return {"waited": True}


@app.post("/async/compute")
async def compute_on_loop() -> dict[str, bool]:
    return work.compute()
