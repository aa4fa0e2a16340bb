"""Cron expressions: the times at which a schedule is due, also where clocks are changed for daylight saving.

The expression is read by cronsim. Its rules for daylight saving are Debian's, which depend on the minute field, too.
Here the hour field alone decides:

    hour is "*"    the schedule follows elapsed time: "*/15 * * * *" is due every 15 minutes, in a repeated hour as well
    other hours    the schedule follows the clock on the wall: a time in a skipped hour is due at the end of the gap,
                   once for all times in it; a time in a repeated hour is due in the first of both

Times are Unix times. Nothing here reads a clock.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from .optional_libraries import missing_library

_LOOK_BACK = [timedelta(days=days) for days in (1 / 24, 1, 32, 367, 9 * 366, 60 * 366)]
"""Spans in which the latest time is searched: a frequent schedule has one in the first, and few in each. Nine years
reach from a leap day to the one before, also over 2100."""

_SECOND = timedelta(seconds=1)


class CronError(ValueError):
    """An expression or a time zone cannot be read. The text is the remedy."""


class Cron:
    """The times of a cron expression in a time zone.

    Args:
        expression: Five fields: minute, hour, day of the month, month, day of the week.
        zone: Name of a time zone (IANA), as in "Europe/Berlin".

    Raises:
        CronError: The expression or the zone cannot be read, or the time never comes.
    """

    def __init__(self, expression: str, zone: str = "UTC") -> None:
        if missing := missing_library("cronsim"):
            raise CronError(missing)
        self.expression = expression
        self.zone = _zone(zone)
        fields = expression.split()
        if len(fields) != 5:
            raise CronError(
                f"{expression!r} has {len(fields)} fields; write five: minute, hour, day of the month, month, day of "
                'the week, as in "0 3 * * *"'
            )
        self.is_elapsed = fields[1] == "*"
        self._check()

    def _check(self) -> None:
        from cronsim import CronSimError

        try:
            next(self._on_the_wall(datetime(2024, 1, 1)))  # in no zone
        except CronSimError as error:
            raise CronError(f"{self.expression!r} cannot be read: {str(error).lower()}") from None
        except StopIteration:
            raise CronError(f"{self.expression!r} never comes; check the day of the month and the month") from None

    def ticks(self, after: float, until: float) -> Iterator[float]:
        """The times later than `after`, and not later than `until`, in order and without repetition."""
        for tick in self._after(datetime.fromtimestamp(after, UTC)):
            if tick.timestamp() > until:
                return
            yield tick.timestamp()

    def next(self, after: float) -> float | None:
        """The first time later than `after`; None if there is none in the next 50 years."""
        return next((tick.timestamp() for tick in self._after(datetime.fromtimestamp(after, UTC))), None)

    def latest(self, until: float) -> float | None:
        """The last time that is not later than `until`; None if there was none."""
        for span in _LOOK_BACK:
            last = max(self.ticks(until - span.total_seconds(), until), default=None)
            if last is not None:
                return last
        return None

    def _after(self, after: datetime) -> Iterator[datetime]:
        from cronsim import CronSim

        local = after.astimezone(self.zone)
        if self.is_elapsed:
            yield from (tick.astimezone(UTC) for tick in CronSim(self.expression, local))
            return
        last = after
        for tick in self._on_the_wall(local.replace(tzinfo=None)):
            instant = self._instant(tick)
            if instant > last:  # else it is in the same gap as the one before, or in the first of two equal hours
                last = instant
                yield instant

    def _on_the_wall(self, after: datetime) -> Iterator[datetime]:
        from cronsim import CronSim

        return CronSim(self.expression, after)

    def _instant(self, wall: datetime) -> datetime:
        """The instant at which clocks show `wall` for the first time, or the end of the gap that skips it."""
        late = wall.replace(tzinfo=self.zone, fold=0).astimezone(UTC)
        if late.astimezone(self.zone).replace(tzinfo=None) == wall:
            return late
        early = wall.replace(tzinfo=self.zone, fold=1).astimezone(UTC)  # before the gap, `late` is after it
        offset = late.astimezone(self.zone).utcoffset()
        while late - early > _SECOND:
            middle = early + ((late - early) / 2 // _SECOND) * _SECOND
            if middle.astimezone(self.zone).utcoffset() == offset:
                late = middle
            else:
                early = middle
        return late


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):  # OSError: "Europe" is a folder of the database
        raise CronError(
            f'there is no time zone {name!r}; write one as in zone="Europe/Berlin". If it should exist, the machine '
            "lacks the database of zones: pip install tzdata"
        ) from None
