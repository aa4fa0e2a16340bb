"""prometheus_client's values in a worker: an author's `inc()`, `set()` and `observe()` write into the worker's file.

    forkserver   `share_values` replaces prometheus_client's class of values; then the author's modules make metrics
    worker       `WorkerValues.attach`; from then on each change of a value is a change of a number in shared memory

A series gets its place in the file with its first change: what the modules count at import is the server's, which has
imported them, too. A process that a job forks counts for itself alone.
"""

from __future__ import annotations

import os
import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import Any

from ..core import forks
from .instruments import MAX_SERIES, OTHER
from .value_file import Definition, ValueWriter, plain_text

_SUM, _FIRST_BUCKET = 0, 1
_INFINITY = "+Inf"


class _Series:
    """The numbers of one series. prometheus_client makes one value for each of them."""

    def __init__(self, definition: Definition) -> None:
        self.definition = definition
        self.first: int | None = None  # index of its first number in the file
        self.is_placed = False  # `first` is known; None then means that there is no room


class WorkerValues:
    """All values of this process."""

    def __init__(self) -> None:
        self.lock = threading.RLock()  # one that a signal handler may take again
        self.file: ValueWriter | None = None
        self._series: dict[tuple[str, tuple[str, ...]], _Series] = {}
        self._placed: dict[str, int] = {}  # series in the file by metric

    def attach(self, descriptor: int) -> None:
        """Share the values of this process, a new worker, from now on."""
        self.file = ValueWriter(descriptor)
        os.close(descriptor)
        forks.detach_in_child(self, WorkerValues._in_forked_child)

    def _in_forked_child(self) -> list[int]:
        self.lock = threading.RLock()  # a thread of the parent may have held it
        self.file = None
        return []

    def series_of(self, definition: Definition) -> _Series:
        key = definition.name, tuple(definition.values)
        with self.lock:
            return self._series.setdefault(key, _Series(definition))

    def place(self, series: _Series) -> int | None:
        """The index of the series' first number. Beyond MAX_SERIES of a metric, that of its series OTHER."""
        if series.is_placed or self.file is None:
            return series.first
        definition = series.definition
        count = self._placed.get(definition.name, 0)
        is_other = all(value == OTHER for value in definition.values)
        if count >= MAX_SERIES and not is_other and definition.kind != "gauge":
            others = Definition(
                definition.kind,
                definition.name,
                definition.text,
                definition.labels,
                [OTHER] * len(definition.labels),
                definition.mode,
                definition.bounds,
            )
            series.first = self.place(self.series_of(others))
        else:
            self._placed[definition.name] = count + 1
            series.first = self.file.add(definition)
        series.is_placed = True
        return series.first


def value_class(values: WorkerValues) -> type:
    """The class of prometheus_client's values: prometheus_client.values.MutexValue with a number in the file."""

    class WorkerValue:
        _multiprocess = False

        def __init__(
            self,
            typ: str,
            metric_name: str,
            name: str,
            labelnames: Sequence[str],
            labelvalues: Sequence[str],
            help_text: str,
            multiprocess_mode: str = "",
            **_: Any,
        ) -> None:
            self._value = 0.0
            self._slot = _SUM
            labels, found = list(labelnames), list(map(plain_text, labelvalues))
            if is_bucket := typ == "histogram" and name.endswith("_bucket"):
                labels.pop()
                bound = found.pop()
            definition = Definition(typ, metric_name, help_text, labels, found, multiprocess_mode)  # type: ignore[arg-type]
            self._series = values.series_of(definition)
            self._is_gauge = typ == "gauge"
            if is_bucket:
                self._slot = _bucket(self._series, bound)
            elif typ == "summary" and name.endswith("_count"):
                self._slot = 1

        def inc(self, amount: float) -> None:
            with values.lock:
                self._value += amount
                file = values.file
                if file is not None and (first := values.place(self._series)) is not None:
                    if self._is_gauge:
                        file.numbers[first], file.numbers[first + 1] = self._value, time.time()
                    else:
                        file.numbers[first + self._slot] += amount

        def set(self, value: float, timestamp: float | None = None) -> None:
            """Of a gauge; also of a counter that the author resets, which does not fall in the file."""
            with values.lock:
                self._value = value
                file = values.file
                if self._is_gauge and file is not None and (first := values.place(self._series)) is not None:
                    file.numbers[first], file.numbers[first + 1] = value, timestamp or time.time()

        def get(self) -> float:
            return self._value

        def set_exemplar(self, exemplar: object) -> None:
            """Exemplars of workers are not shared, as in prometheus_client's own multiprocess mode."""

        def get_exemplar(self) -> None:
            return None

    return WorkerValue


def _bucket(series: _Series, bound: str) -> int:
    """The place of a bucket among the numbers of its series. prometheus_client makes the buckets in their order."""
    bounds = series.definition.bounds
    if bound == _INFINITY:
        return _FIRST_BUCKET + len(bounds)
    value = float(bound)
    if not series.is_placed and (not bounds or value > bounds[-1]):
        bounds.append(value)
    return _FIRST_BUCKET + bisect_left(bounds, value)


def share_values() -> Callable[[int], None]:
    """In a forkserver, before the author's modules load. Returns the function that a new worker calls, with the
    descriptor of its file.
    """
    values = WorkerValues()
    try:
        from prometheus_client import values as prometheus_values
    except ImportError:
        return os.close
    prometheus_values.ValueClass = value_class(values)
    return values.attach
