"""Figures of candidates, beside those of the versions that serve: outcomes, times, differences.

They count only requests that are tried: those of `share`, and of `shadow` the requests that a candidate computed, too.
"""

from __future__ import annotations

from typing import NamedTuple

from ..telemetry.instruments import Counter, Family, Histogram, Registry
from .pool_metrics import POOL_TIMES

DIFFERENCES = (0.0, 1e-6, 1e-5, 1e-4, 1e-3, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 100.0, 1000.0)
"""Upper bounds. The first bucket has the equal responses, if `compare` returns no negative numbers."""

SERVED, CANDIDATE = "served", "candidate"


class Counted:
    """One variant of a route."""

    def __init__(self, jobs: Family[Counter], times: Histogram, *labels: str) -> None:
        self._jobs, self._labels, self._times = jobs, labels, times
        for outcome in ("ok", "error"):  # a rate needs the zero before the first one
            jobs.of(*labels, outcome)

    def end(self, outcome: str, seconds: float) -> None:
        """One computation has ended."""
        self._jobs.of(*self._labels, outcome).add()
        self._times.observe(seconds)


class VariantMetrics(NamedTuple):
    """The two variants of a route."""

    served: Counted
    candidate: Counted
    differences: Histogram
    skipped: Counter


class CandidateMetrics:
    """The figures of all candidates of a service."""

    def __init__(self, registry: Registry) -> None:
        labels = ["http.route", "artifact", "variant"]
        self._jobs = registry.counter(
            "tinysvc.candidate.requests",
            "Requests of both variants of a route that tries a candidate, by their outcome.",
            [*labels, "outcome"],
        )
        self._times = registry.histogram(
            "tinysvc.candidate.duration", "Time that a variant took for a request.", labels, bounds=POOL_TIMES
        )
        self._differences = registry.histogram(
            "tinysvc.candidate.difference",
            "What `compare` returned for the two responses.",
            labels[:2],
            unit="",
            bounds=DIFFERENCES,
        )
        self._skipped = registry.counter(
            "tinysvc.candidate.skipped", "Requests that `shadow` left out, as no worker was idle.", labels[:2]
        )

    def of(self, route: str, reference: str) -> VariantMetrics:
        """The figures of one route."""

        def counted(variant: str) -> Counted:
            labels = (route, reference, variant)
            return Counted(self._jobs, self._times.of(*labels), *labels)

        return VariantMetrics(
            counted(SERVED),
            counted(CANDIDATE),
            self._differences.of(route, reference),
            self._skipped.of(route, reference),
        )
