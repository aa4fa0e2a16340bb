"""core/tracebacks.py: the author's part of a traceback."""

from __future__ import annotations

import pytest

from tinysvc.core.tracebacks import author_traceback


def test_traceback_begins_at_the_authors_code() -> None:
    from tinysvc.core.responses import Response

    try:
        Response(status=1)
    except ValueError as error:
        text = author_traceback(error)
    assert "test_tracebacks.py" in text
    assert "responses.py" not in text
    assert text.endswith("a response takes a status from 200 to 599, not 1")


@pytest.mark.asyncio
async def test_traceback_from_a_thread_and_its_cause_begin_there_too() -> None:
    from tinysvc.core.threads import in_thread

    nothing: dict[str, int] = {}

    async def in_ours() -> None:
        await in_thread(lambda: nothing["missing"])

    try:
        try:
            await in_ours()
        except KeyError as error:
            raise ValueError("no such thing") from error
    except ValueError as error:
        text = author_traceback(error)
    files = [line.split('"')[1] for line in text.splitlines() if line.lstrip().startswith("File ")]
    assert files == [__file__] * len(files)
    assert "KeyError: 'missing'" in text
    assert text.endswith("ValueError: no such thing")
