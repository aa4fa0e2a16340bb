"""inherited.py: workers draw different random numbers; threads before the fork are reported."""

from __future__ import annotations

import random
import threading
from types import SimpleNamespace

import numpy
import pytest

import inherited_jobs
from tinysvc import ProcessPoolExecutor
from tinysvc.pool import inherited
from tinysvc.pool.inherited import ThreadWatch, count_threads, find_generators, started_by


@pytest.mark.asyncio
async def test_successive_workers_draw_different_numbers() -> None:
    async with ProcessPoolExecutor(1, max_jobs=1, initializer=inherited_jobs.numbers) as pool:
        first, second, third = [await pool.run(inherited_jobs.numbers) for _ in range(3)]
    for name in first:
        assert len({first[name], second[name], third[name]}) == 3, name


def test_generators_of_a_shared_resource_are_seeded_again() -> None:
    shared = SimpleNamespace(rng=random.Random(1), deep=[{"rng": numpy.random.default_rng(1)}])
    found = find_generators(SimpleNamespace(values={"key": shared}))
    random_state, numpy_state = shared.rng.getstate(), shared.deep[0]["rng"].bit_generator.state
    found.reseed()
    assert shared.rng.getstate() != random_state
    assert shared.deep[0]["rng"].bit_generator.state != numpy_state


def test_generators_of_the_program_are_found_before_many_objects_of_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inherited, "MAX_OBJECTS", 10)
    rng = random.Random(1)
    assert rng.seed in find_generators(SimpleNamespace(values=[[rng]])).reseeders


def test_unseedable_generator_is_named() -> None:
    class Fixed(random.Random):
        def seed(self, *arguments: object) -> None:
            if arguments == ():
                raise TypeError("it is fixed")

    found = find_generators(SimpleNamespace(mine=Fixed(1), sequence=numpy.random.SeedSequence(1)))
    assert "the program.mine" in found.warning()
    assert "the program.sequence" in found.warning()


def test_system_random_needs_no_seed() -> None:
    secure = random.SystemRandom()
    found = find_generators(SimpleNamespace(secure=secure))
    assert secure.seed not in found.reseeders


def test_threads_are_reported_with_their_source() -> None:
    watch = ThreadWatch()
    before = count_threads()
    end = threading.Event()
    with watch.during("the resource outer"), watch.during("the resource inner"):
        thread = threading.Thread(target=end.wait)
        thread.start()
    warning = watch.warning()
    end.set()
    thread.join()
    assert "They were started by the resource inner (1)" in warning
    assert before >= 1


def test_threads_are_not_counted_without_a_watch() -> None:
    with started_by("the resource x"):
        pass
