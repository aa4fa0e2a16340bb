"""In the forkserver: threads and random number generators, which workers inherit but cannot use as they are.

Threads do not exist in a forked process: a job that waits for one waits until its deadline. ThreadWatch finds the
import or resource that has started them. Generators would draw the same numbers in all workers. `find_generators` finds
them in the author's modules (globals, attributes, containers, defaults and closures of functions), in shared resources,
and in the globals of libraries; each worker seeds them again. Generators that a worker itself creates, in a
cpu_resource without shared=True or in a handler, keep their seeds.
"""

from __future__ import annotations

import os
import random
import sys
import threading
import time
import warnings
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from importlib.machinery import ExtensionFileLoader, SourceFileLoader
from types import BuiltinMethodType, FunctionType, MethodType, ModuleType
from typing import Any, NamedTuple

SETTLE = 0.05
"""Seconds in which a thread may end before it is reported."""

MAX_OBJECTS, MAX_DEPTH, MAX_ITEMS = 50_000, 6, 1000
"""Objects to search, levels below a module's globals, and items of one container."""


# Threads


def count_threads() -> int:
    """The number of threads of this process, on Linux including those of C libraries."""
    try:
        return len(os.listdir("/proc/self/task"))
    except OSError:
        return threading.active_count()


class ThreadWatch:
    """Notes the imports and resources that start threads."""

    def __init__(self) -> None:
        self.started: Counter[str] = Counter()
        self._source = "the main module"
        self._seen = count_threads()

    @contextmanager
    def during(self, source: str) -> Iterator[None]:
        """Attribute threads that start in this block, but not in an inner one, to `source`."""
        self._note()
        outer, self._source = self._source, source
        try:
            yield
        finally:
            self._note()
            self._source = outer

    def _note(self) -> None:
        seen, self._seen = self._seen, count_threads()
        if self._seen > seen:
            self.started[self._source] += self._seen - seen

    @contextmanager
    def imports(self) -> Iterator[None]:
        """Watch the import of each module in this block."""
        watched: list[tuple[Any, Any]] = [
            (loader, loader.exec_module) for loader in (SourceFileLoader, ExtensionFileLoader)
        ]

        def watching(original: Any) -> Any:
            def exec_module(loader: Any, module: ModuleType) -> None:
                with self.during(f"the import of {module.__name__}"):
                    original(loader, module)

            return exec_module

        for loader, original in watched:
            loader.exec_module = watching(original)
        try:
            yield
        finally:
            for loader, original in watched:
                loader.exec_module = original

    def warning(self) -> str:
        """A warning about the threads that run now; "" if there are none."""
        self._note()
        if count_threads() < 2:
            return ""
        _fork_once()
        time.sleep(SETTLE)
        count = count_threads() - 1
        if not count:
            return ""
        by = ", ".join(f"{source} ({number})" for source, number in self.started.items())
        return (
            f"threads run before the workers are forked ({count}), and do not run in the workers: a job that waits for "
            f"one waits until its deadline. They were started by {by or 'an unknown source'}. Start them in the "
            "worker: in a @cpu_resource without shared=True, or at their first use"
        )


def _fork_once() -> None:
    """Fork once. Libraries that are prepared for a fork (OpenBLAS) end their threads before it: those are harmless."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if not pid:
        os._exit(0)
    os.waitpid(pid, 0)


watch: ThreadWatch | None = None  # of this process, while the program loads


@contextmanager
def started_by(source: str) -> Iterator[None]:
    """Attribute threads that start in this block to `source`, while the forkserver loads the program."""
    if watch is None:
        yield
        return
    with watch.during(source):
        yield


# Random numbers


class Generators(NamedTuple):
    """Functions that seed generators again, and the names of generators that cannot be seeded."""

    reseeders: list[Callable[[], object]]
    unseedable: list[str]

    def reseed(self) -> None:
        for reseed in self.reseeders:
            try:
                reseed()
            except Exception:  # it worked in the forkserver; and a worker with old seeds is better than none
                pass

    def warning(self) -> str:
        if not self.unseedable:
            return ""
        return (
            f"every worker draws the same random numbers from {', '.join(self.unseedable)}, which cannot be seeded "
            "again; make it in a @cpu_resource without shared=True"
        )


def find_generators(program: object) -> Generators:
    """Find the generators that the workers inherit. Each is seeded here once, as a test."""
    found = Generators([], [])
    seen: set[int] = set()
    _search(deque([("the program", program, 0)]), seen, found)
    _search(deque(_module_values(_packages(program))), seen, found)
    return found


def _module_values(packages: Collection[str]) -> Iterator[tuple[str, Any, int]]:
    """The values in all modules but those of the standard library. Only those of the author are searched in depth."""
    for name, module in list(sys.modules.items()):
        if isinstance(module, ModuleType) and not _is_stdlib(name):
            depth = 1 if name.partition(".")[0] in packages or _is_authors(module) else MAX_DEPTH
            yield from ((f"{name}.{key}", value, depth) for key, value in list(vars(module).items()))


def _search(queue: deque[tuple[str, Any, int]], seen: set[int], found: Generators) -> None:
    last = len(seen) + MAX_OBJECTS
    while queue and len(seen) < last:
        name, value, depth = queue.popleft()
        if id(value) in seen or isinstance(value, (str, bytes, int, float, ModuleType, type(None))):
            continue
        seen.add(id(value))
        try:
            reseed = _reseeder(value)
            if reseed is not None:
                reseed()
                found.reseeders.append(reseed)
            elif depth < MAX_DEPTH or isinstance(value, (MethodType, BuiltinMethodType)):
                queue.extend((inner, each, depth + 1) for inner, each in _parts(name, value))
        except Exception:
            found.unseedable.append(name)


def _reseeder(value: Any) -> Callable[[], object] | None:
    """The function that seeds a generator; None for other values. TypeError if the generator cannot be seeded."""
    kind = type(value)
    if issubclass(kind, random.Random):
        return None if issubclass(kind, random.SystemRandom) else value.seed
    if (numpy := sys.modules.get("numpy.random")) is not None:
        if issubclass(kind, numpy.Generator):
            return partial(_seed_bits, value.bit_generator)
        if issubclass(kind, numpy.BitGenerator):
            return partial(_seed_bits, value)
        if issubclass(kind, numpy.RandomState):
            return value.seed  # type: ignore[no-any-return]
        if issubclass(kind, numpy.SeedSequence):
            raise TypeError("its entropy is fixed")
    torch_generator = getattr(sys.modules.get("torch"), "Generator", None)
    if isinstance(torch_generator, type) and issubclass(kind, torch_generator):
        return value.seed  # type: ignore[no-any-return]
    return None


def _seed_bits(bits: Any) -> None:
    type(bits).__init__(bits)  # with a new seed sequence, which `spawn` uses


def _parts(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """The objects to which the value refers, as far as they are visible without running any code."""
    if isinstance(value, Mapping):
        if isinstance(value, dict):
            yield from ((f"{name}[{key!r:.40}]", each) for key, each in list(value.items())[:MAX_ITEMS])
    elif isinstance(value, (list, tuple, set, frozenset, deque)):
        yield from ((f"{name}[{number}]", each) for number, each in enumerate(list(value)[:MAX_ITEMS]))
    elif isinstance(value, (MethodType, BuiltinMethodType)):
        yield name, value.__self__
        yield name, getattr(value, "__func__", None)
    elif isinstance(value, partial):
        yield from ((name, each) for each in (value.func, *value.args, *value.keywords.values()))
    elif isinstance(value, FunctionType):
        inner = [*(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values()]
        for cell in value.__closure__ or ():
            try:
                inner.append(cell.cell_contents)
            except ValueError:  # empty
                pass
        yield from ((name, each) for each in inner)
    try:
        attributes = dict(object.__getattribute__(value, "__dict__"))
    except (AttributeError, TypeError):
        attributes = {}
    yield from ((f"{name}.{key}", each) for key, each in list(attributes.items())[:MAX_ITEMS])
    for base in type(value).__mro__:
        for key, member in vars(base).items():
            if type(member).__name__ == "member_descriptor":  # of __slots__
                try:
                    yield f"{name}.{key}", member.__get__(value)
                except (AttributeError, TypeError):
                    pass


def _packages(program: Any) -> set[str]:
    """The top-level packages of the author's handlers, which may be installed like libraries."""
    functions = [getattr(each, "function", None) for each in getattr(program, "endpoints", ())]
    return {getattr(function, "__module__", "").partition(".")[0] for function in functions} - {"tinysvc", ""}


def _is_stdlib(name: str) -> bool:
    top = name.partition(".")[0]
    return top in sys.stdlib_module_names or top == "tinysvc"


def _is_authors(module: ModuleType) -> bool:
    file = getattr(module, "__file__", None) or ""
    installed = "site-packages" in file or "dist-packages" in file
    return not installed
