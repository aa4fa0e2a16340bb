"""An author's own prometheus_client metrics: those of this server process, and those of its workers.

    this process    prometheus_client.REGISTRY, read as a scrape would read it (registered_metrics.py)
    live workers    their files, read in place (value_file.py)
    ended workers   what their files held at their end, added up

A counter, a histogram and a summary is the sum of all three. A gauge follows its `multiprocess_mode`, as with
prometheus_client's own files: "sum", "max", "min" and "mostrecent" keep the values of ended workers, "livesum" and the
like drop them. With the default, "all", there is a series for each process, with the label `pid`; prometheus_client
would keep those of ended processes, too, without end.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from functools import partial

from . import instruments
from .instruments import OTHER
from .registered_metrics import PAUSE, SLICE, mode_of, registered_metrics
from .snapshots import Metric, Mode, Point, Snapshot, merge
from .value_file import SIZE, Definition, Image, ValueReader

log = logging.getLogger("tinysvc")

KEPT_MODES = {"sum", "max", "min", "mostrecent"}
"""Modes of gauges whose values outlive their worker."""

PID = "pid"

MAX_COUNT = 2**53
"""Observations in a bucket of one worker; a worker that has gone wrong may claim more, which no snapshot can carry."""

MAX_PENDING = 32
"""Images of ended workers that wait for a scrape. Beyond that they are added up on the event loop: 2 ms for each 1,000
series."""


class AuthorMetrics:
    """All metrics that are the author's, as a source of snapshots.

    Workers come and go on the event loop; scrapes read in their threads. Between them is a lock that is held while the
    files are copied.

    Args:
        has_siblings: Other server processes serve the same service: a gauge of this process needs its pid.
    """

    def __init__(self, *, has_siblings: bool = False) -> None:
        self._has_siblings = has_siblings
        self._lock = threading.Lock()
        self._live: set[ValueReader] = set()
        self._pending: list[Image] = []  # of workers that have ended; not yet in _ended
        self._scraping = threading.Lock()  # for what follows
        self._ended: Snapshot = []
        self._admitted: dict[str, set[tuple[str, ...]]] = {}  # label values that have a series of their own
        self._seen: dict[
            tuple[str, ...], tuple[float, float]
        ] = {}  # a gauge of this process: value, time of its change
        self._is_reported = False

    def attach(self, descriptor: int) -> Callable[[], None]:
        """Read the file of a new worker from now on. Returns the function to call when the worker has ended."""
        reader = ValueReader(descriptor)
        with self._lock:
            self._live.add(reader)
        return partial(self._detach, reader)

    def _detach(self, reader: ValueReader) -> None:
        with self._lock:
            self._live.discard(reader)
            self._pending.append(reader.image())
            reader.close()
        if len(self._pending) > MAX_PENDING and self._scraping.acquire(blocking=False):
            try:
                self._add_ended(self._copy()[0])
            finally:
                self._scraping.release()

    def _copy(self) -> tuple[list[Image], list[Image]]:
        """Copies of the files of workers that have ended since the last call, and of those that live."""
        with self._lock:
            ended, self._pending = self._pending, []
            return ended, [reader.image() for reader in self._live]

    def _add_ended(self, images: list[Image]) -> None:
        kept = (self._limited(_snapshot(image, keeps_all=False)) for image in images)
        self._ended = merge([self._ended, *kept]) if images else self._ended
        self._report_lost(images)

    def metrics(self) -> Snapshot:
        """A copy of all values. In a thread: it takes about 10 us a series, and calls the author's collectors."""
        own = registered_metrics()
        with self._scraping:
            ended, live = self._copy()
            self._add_ended(ended)
            self._report_lost(live)
            workers = [self._ended, *(self._limited(_snapshot(image)) for image in live)]
            reported = {metric.name for snapshot in workers for metric in snapshot}
            for metric, mode in own:
                if metric.kind == "gauge":
                    self._prepare_gauge(metric, of_each_process=mode is None, of_workers=metric.name in reported)
            found = [metric for metric, _ in own if metric.points or metric.name not in reported]
            return merge([*workers, self._limited(found)])

    def _prepare_gauge(self, metric: Metric, *, of_each_process: bool, of_workers: bool) -> None:
        """A gauge of this process. prometheus_client does not know when it was set: take the first snapshot with it."""
        for point in metric.points:
            key = (metric.name, *point.labels)
            value, point.time = self._seen.get(key, (0.0, 0.0))
            if value != point.value:
                point.time = time.time()
                self._seen[key] = point.value, point.time
        if of_workers:  # 0 means: the module has made the gauge in this process, too, and nothing has set it
            metric.points = [point for point in metric.points if point.time]
        if of_each_process and PID not in metric.labels and (of_workers or self._has_siblings):
            pid = str(os.getpid()) if self._has_siblings else ""  # an empty label is as none
            metric.labels = [*metric.labels, PID]
            for point in metric.points:
                point.labels.append(pid)

    def _limited(self, snapshot: Snapshot) -> Snapshot:
        """The snapshot, with at most MAX_SERIES of each metric. Further ones share one; of a gauge they are dropped.

        Which ones have a series of their own never changes: otherwise a counter would fall.
        """
        for metric in snapshot:
            if metric.kind == "gauge":
                del metric.points[instruments.MAX_SERIES :]
                continue
            admitted = self._admitted.setdefault(metric.name, set())
            for point in metric.points:
                if (labels := tuple(point.labels)) in admitted:
                    continue
                if len(admitted) < instruments.MAX_SERIES:
                    admitted.add(labels)
                else:
                    point.labels = [OTHER] * len(labels)
        return snapshot

    def _report_lost(self, images: list[Image]) -> None:
        if not self._is_reported and any(image.lost for image in images):
            self._is_reported = True
            log.warning(
                "a worker's metrics have more series than its %d KiB for them can hold; further ones are not counted: "
                "use fewer values of labels",
                SIZE // 1024,
            )


def _snapshot(image: Image, *, keeps_all: bool = True) -> Snapshot:
    """The series of a worker. A gauge that has a series for each process gets the label `pid`.

    Args:
        image: What its file held.
        keeps_all: The worker lives; else without the gauges that end with it.
    """
    found: dict[str, Metric] = {}
    for number, (definition, numbers) in enumerate(image.values()):
        if not number % SLICE:
            time.sleep(PAUSE)
        labels, values = list(definition.labels), list(definition.values)
        mode: Mode = "sum"
        if definition.kind == "gauge":
            if not keeps_all and definition.mode not in KEPT_MODES:
                continue
            mode = mode_of(definition.mode) or "mostrecent"
            if not mode_of(definition.mode) and PID not in labels:
                labels.append(PID)
                values.append(str(image.pid))
        metric = found.setdefault(
            definition.name,
            Metric(definition.name, definition.kind, definition.text, "", labels, definition.bounds, mode, []),
        )
        if (metric.kind, metric.labels, metric.bounds) == (definition.kind, labels, definition.bounds):
            metric.points.append(_point(definition, values, numbers))
    return list(found.values())


def _point(definition: Definition, labels: list[str], numbers: list[float]) -> Point:
    if definition.kind == "gauge":
        return Point(labels, numbers[0], time=numbers[1])
    return Point(labels, numbers[0], [int(min(max(number, 0), MAX_COUNT)) for number in numbers[1:]])
