"""optional_libraries.py: a missing library is reported with the extra that installs it."""

from __future__ import annotations

import sys

import pytest

from tinysvc.core.optional_libraries import Library, missing_library


@pytest.mark.parametrize(
    ("library", "extra"),
    [
        ("cronsim", "cron"),
        ("itsdangerous", "cookies"),
        ("multipart", "forms"),
        ("obstore", "models"),
        ("opentelemetry", "otel"),
        ("prometheus_client", "metrics"),
        ("websockets", "websocket"),
    ],
)
def test_missing_library_is_reported_with_its_extra(
    library: Library, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert missing_library(library) == ""
    monkeypatch.setitem(sys.modules, library, None)
    for module in [name for name in sys.modules if name.startswith(f"{library}.")]:
        monkeypatch.delitem(sys.modules, module)
    missing = missing_library(library)
    assert f"the {library} library" in missing
    assert missing.endswith(f"pip install 'tinysvc[{extra}]'")
