"""A service with job routes for the tests of the docs page: files decide how far its jobs go."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

from tinysvc import ApiKey, HTTPError, Job, Retry, io_resource, job_route


@io_resource
def owner(key: Annotated[str, ApiKey("x-key")]) -> str:
    if key != "sesame":
        raise HTTPError(403, "This key opens nothing.")
    return key


@job_route("/users/{user}/trainings", retry=Retry(attempts=1), keep="2d")
def train(user: int, folder: str, job: Job, owner: str) -> dict[str, int]:
    """Fit a model.

    It takes one step for each of the files `step-1`, `step-2`, ... and ends with the file `end` or `error`.
    """
    step = 1
    while not Path(folder, "end").exists():
        if Path(folder, "error").exists():
            raise HTTPError(409, "The data does not fit.")
        if Path(folder, f"step-{step}").exists():
            job.progress(step / 4, loss=1 / step, note="<b>plain</b>")
            step += 1
        time.sleep(0.01)
    return {"steps": step - 1, "user": user}


@job_route("/cleanups", every="0 3 * * *", zone="Europe/Berlin")
def cleanup() -> None:
    """Remove old files."""


parts = [owner, train, cleanup]
