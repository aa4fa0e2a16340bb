"""The log of a server process: to standard error, as text or as JSON, unless the author has configured logging."""

from __future__ import annotations

import logging
import sys
from typing import Any

from ..core.settings import Settings
from .log_format import JsonFormatter, TextFormatter
from .log_writer import LogWriter

log = logging.getLogger("tinysvc.log")
access = logging.getLogger("tinysvc.access")


def configure_logging(settings: Settings, *, shows_process: bool = False) -> None:
    """Log to standard error, unless the author's module has given the root logger a handler.

    Args:
        settings: The settings of the server.
        shows_process: Whether each line has the process id: for several server processes.
    """
    root, is_json = logging.getLogger(), settings.log_format == "json"
    if settings.access_log and access.level == logging.NOTSET:
        access.setLevel(logging.INFO)  # --access-log is not undone by --log-level warning
    if root.handlers:
        if is_json:
            log.warning("log_format is json, but the module has configured logging: its own handlers write the lines")
        return
    handler = _handler(sys.stderr)
    process = "[%(process)d]" if shows_process else ""
    text_format = f"%(levelname)s %(name)s{process}: %(message)s"
    handler.setFormatter(JsonFormatter(shows_process=shows_process) if is_json else TextFormatter(text_format))
    root.addHandler(handler)
    root.setLevel(settings.log_level.upper())
    if is_json:
        logging.captureWarnings(True)  # a warning that Python prints is no JSON


def _handler(stream: Any) -> logging.Handler:
    try:
        return LogWriter(stream.fileno())
    except (OSError, AttributeError, ValueError):  # a program has replaced sys.stderr: io.StringIO, for example
        return logging.StreamHandler(stream)
