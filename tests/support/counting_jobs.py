"""A module of an author, with metrics of prometheus_client, and jobs that change them."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from multiprocessing import get_context

import prometheus_client as prometheus
from prometheus_client import Counter, Gauge, Histogram, Summary

SOLD = Counter("sold", "Books sold.", ["shop"])
PLAIN = Counter("plain_total", "Without labels.")
SIZE = Histogram("size", "Bytes.", ["shop"], buckets=[1, 10, 100])
COST = Summary("cost", "Euros.")
ALL = Gauge("of_all", "Of each process.")
SUM = Gauge("of_sum", "Sum.", multiprocess_mode="sum")
LIVE = Gauge("of_livesum", "Sum of the living.", multiprocess_mode="livesum")
HIGHEST = Gauge("of_max", "Highest.", ["shop"], multiprocess_mode="max")
NEWEST = Gauge("of_mostrecent", "Newest.", multiprocess_mode="mostrecent")

PLAIN.inc(1000)  # at import: in the server, once, and in no worker


def sold_nothing() -> None:
    pass


def sell(shop: str, count: int) -> int:
    for _ in range(count):
        SOLD.labels(shop).inc()
    PLAIN.inc(0.5)
    return os.getpid()


def sell_and_stop(shop: str, count: int, *, how: int = signal.SIGKILL) -> None:
    sell(shop, count)
    os.kill(os.getpid(), how)


def sell_and_wait(shop: str, count: int) -> None:
    sell(shop, count)
    time.sleep(60)


def sell_each(shop: str, count: int) -> Iterator[int]:
    for number in range(count):
        SOLD.labels(shop).inc()
        yield number


def observe(*values: float) -> None:
    for value in values:
        SIZE.labels("a").observe(value)
        COST.observe(value)


def set_gauges(value: float) -> int:
    for gauge in (ALL, SUM, LIVE, HIGHEST.labels("a"), NEWEST):
        gauge.set(value)
    return os.getpid()


def in_progress(seconds: float) -> None:
    with LIVE.track_inprogress():
        time.sleep(seconds)


def sell_to_many(count: int) -> None:
    for number in range(count):
        SOLD.labels(f"shop {number}").inc()


def sell_in_threads(threads: int, count: int) -> None:
    every = [threading.Thread(target=sell, args=("threads", count)) for _ in range(threads)]
    for each in every:
        each.start()
    for each in every:
        each.join()


def sell_in_child() -> None:
    process = get_context("fork").Process(target=sell, args=("child", 5))
    process.start()
    process.join()
    sell("child", 1)


def make_metric() -> None:
    """As a library that makes its metrics when it is used."""
    Counter("made_in_a_worker", "Late.", registry=prometheus.CollectorRegistry()).inc(2)


def reset_and_remove() -> None:
    SOLD.labels("reset").inc(2)
    SOLD.labels("reset").reset()
    SOLD.labels("reset").inc()
    SOLD.remove("reset")
    SOLD.labels("reset").inc()
    SIZE.labels("a").observe(5)
    SIZE.remove("a")
    SIZE.labels("a").observe(500)


def observe_many(count: int) -> None:
    """Fills the worker's file: the names of the shops are long."""
    for number in range(count):
        SIZE.labels(f"{number} {'x' * 600}").observe(1)
