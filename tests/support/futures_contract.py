"""CPython's own tests of concurrent.futures, run against our pool: `python futures_contract.py GROUP`.

Each group is a mixin of CPython's, which does not name the executor under test. Where it makes executors with the
standard library's arguments, ours is given them by `Renamed`.
"""

from __future__ import annotations

import importlib
import sys
import tempfile
import time
import unittest
from functools import cache
from pathlib import Path
from typing import Any

from tinysvc import ProcessPoolExecutor

GROUPS = {
    "basics": ("executor", "ExecutorTest"),
    "wait": ("test_wait", "WaitTests"),
    "as_completed": ("test_as_completed", "AsCompletedTests"),
    "initializer": ("test_init", "InitializerMixin"),
    "shutdown": ("test_shutdown", "ExecutorShutdownTest"),
    "processes": ("test_process_pool", "ProcessPoolExecutorTest"),
    "faults": ("test_deadlock", "ExecutorDeadlockTest"),
}

_PRIVATE = "reads or replaces private parts of the standard library's pool"
_NEW = "calls a method that the standard library has from Python 3.14 on, and this pool does not have"
_ONE_JOB = "asks that this breaks the whole pool; here it fails one job, with its own error"

LEFT_OUT = {
    "test_killed_child": _ONE_JOB,
    "test_broken_process_pool_traceback": _PRIVATE,
    "test_gc_during_max_tasks_worker_exit_gh152967": _PRIVATE,
    "test_shutdown_no_wait_max_tasks_gh119592": _PRIVATE,
    "test_force_shutdown_during_max_tasks_worker_exit": _PRIVATE,
    "test_failed_worker_replacement_breaks_pool": _PRIVATE,
    "test_terminate_workers": _NEW,
    "test_kill_workers": _NEW,
    "test_force_shutdown_workers_invalid_op": _PRIVATE,
    "test_force_shutdown_workers": _NEW,
    "test_force_shutdown_workers_dead_workers": _NEW,
    "test_force_shutdown_workers_not_started_yet": _NEW,
    "test_force_shutdown_workers_stops_pool": _NEW,
    "test_error_at_task_unpickle": _ONE_JOB,
    "test_exit_at_task_unpickle": _ONE_JOB,
    "test_error_during_result_unpickle_in_result_handler": _ONE_JOB,
    "test_exit_during_result_unpickle_in_result_handler": _ONE_JOB,
    "test_saturation": _PRIVATE,
    "test_idle_process_reuse_one": _PRIVATE,
    "test_idle_process_reuse_multiple": _PRIVATE,
    "test_max_tasks_per_child": _PRIVATE,
    "test_max_tasks_per_child_defaults_to_spawn_context": _PRIVATE,
    "test_shutdown_deadlock_pickle": _PRIVATE,
    "test_gh105829_should_not_deadlock_if_wakeup_pipe_full": _PRIVATE,
    "test_python_finalization_error": "asks that a second thread is needed; here there is one",
}


class Renamed(ProcessPoolExecutor):
    """Takes the arguments of the standard library."""

    def __init__(self, max_workers: int | None = None, mp_context: Any = None, **options: Any) -> None:
        super().__init__(max_workers, max_jobs=options.pop("max_tasks_per_child", 0), **options)


class FileEvent:
    """An event for other processes: a file that appears."""

    def __init__(self, folder: str) -> None:
        self.path = Path(folder) / "set"

    def set(self) -> None:
        self.path.touch()

    def wait(self) -> None:
        while not self.path.exists():
            time.sleep(0.005)


def create_event(case: unittest.TestCase) -> FileEvent:
    """From Python 3.14 on, the test case of each executor creates the events for CPython's tests."""
    return FileEvent(case.enterContext(tempfile.TemporaryDirectory()))


@cache
def case_of(group: str) -> type[unittest.TestCase]:
    module, mixin = GROUPS[group]
    cpython: Any = importlib.import_module(f"test.test_concurrent_futures.{module}")
    util = importlib.import_module("test.test_concurrent_futures.util")
    members: dict[str, Any] = {
        "__module__": __name__,
        "executor_type": ProcessPoolExecutor,
        "create_event": create_event,
    }
    if group in ("processes", "faults"):
        members |= {"executor_type": Renamed, "ctx": "forkserver"}
    if group == "shutdown":
        cpython.assert_python_ok = with_our_executor(cpython.assert_python_ok)
    return type(group, (getattr(cpython, mixin), util.ExecutorMixin, util.BaseTestCase), members)


def __getattr__(name: str) -> Any:
    """Tests submit methods of their own class, which a worker finds here."""
    if name in GROUPS:
        return case_of(name)
    raise AttributeError(name)


def tests_of(group: str) -> unittest.TestSuite:
    case = case_of(group)
    names = unittest.defaultTestLoader.getTestCaseNames(case)
    seen = vars(importlib.import_module("test.test_concurrent_futures.executor").ExecutorTest)
    return unittest.TestSuite(
        case(name) for name in names if name not in LEFT_OUT and (group == "basics" or name not in seen)
    )


def with_our_executor(assert_python_ok: Any) -> Any:
    def run(*arguments: str) -> Any:
        return assert_python_ok(*(text.replace("from concurrent.futures", "from tinysvc") for text in arguments))

    return run


if __name__ == "__main__":
    support: Any = importlib.import_module("test.support")
    support.use_resources = {}  # no slow tests
    result = unittest.TextTestRunner(verbosity=2).run(tests_of(sys.argv[1]))
    sys.exit(not result.wasSuccessful() or support.environment_altered or not result.testsRun)
