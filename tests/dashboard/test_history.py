"""history.py: which readings are kept, and the windows between them."""

from __future__ import annotations

from itertools import pairwise

from dashboard_readings import FakeService
from tinysvc.dashboard.history import CHART, SECONDS, STEP, Window


def test_old_readings_are_kept_in_steps_and_new_ones_each_second() -> None:
    service = FakeService()
    service.tick(1, 100)
    times = [each.time for each in service.history.readings()]
    assert times == sorted(times)
    assert times[-SECONDS:] == [service.now - ago for ago in reversed(range(SECONDS))]
    assert all(after - before == STEP for before, after in pairwise(times[:10]))


def test_a_quarter_of_an_hour_is_kept() -> None:
    service = FakeService()
    service.tick(STEP, 3 * CHART)
    assert len(list(service.history.steps())) == CHART
    assert len(list(service.history.readings())) <= CHART + SECONDS + 1


def test_window_counts_what_happened_in_it() -> None:
    service = FakeService()
    service.tick(1, 30)
    service.request(times=7)
    service.request("/new", status=503)
    service.lag.of().observe(0.2)
    service.tick(1, 5)
    window = service.history.window(10)
    assert window is not None
    assert window.seconds == 10
    assert window.route("GET /page").times.count == 7
    assert window.route("GET /new").errors == 1
    assert window.all_routes().times.count == 8
    assert window.lag().count == 1
    service.tick(1, 30)
    later = service.history.window(10)
    assert later is not None
    assert later.all_routes().times.count == 0


def test_window_of_a_young_server_is_shorter() -> None:
    service = FakeService()
    assert service.history.window(60) is None
    service.tick()
    assert service.history.window(60) is None
    service.tick(1, 2)
    window = service.history.window(60)
    assert window is not None
    assert window.seconds == 2


def test_pool_of_a_window_has_its_counts_and_the_state_at_its_end() -> None:
    service = FakeService()
    service.ends.of("default", "crashed").add(5)
    service.tick()
    service.ends.of("default", "crashed").add(2)
    service.waiting = 9
    service.tick()
    window = service.history.window(10)
    assert isinstance(window, Window)
    assert window.pool("default").ends == {"crashed": 2}
    assert window.pool("default").waiting == 9
