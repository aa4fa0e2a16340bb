"""alias_looks.py: what a look finds, and which troubles it notes."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from swap_pools import publish, served_artifacts, store_in, store_is_away
from system import until
from tinysvc.runtime import alias_looks
from tinysvc.runtime.alias_looks import AliasLooks

CHURN, WORDS = "churn@production", "words@production"


def looks_in(folder: Path, *, may_be_absent: bool = True) -> AliasLooks:
    looks = AliasLooks(served_artifacts(folder, CHURN, WORDS, may_be_absent=may_be_absent))
    looks.aliases = [CHURN, WORDS]
    return looks


@pytest.mark.asyncio
async def test_look_finds_the_aliases_that_exist(tmp_path: Path) -> None:
    publish(store_in(tmp_path))
    looks = looks_in(tmp_path)
    assert await looks.look() == {CHURN: 1}
    assert (looks.problem_of(CHURN), looks.problem_of(WORDS)) == ("", "")
    publish(store_in(tmp_path), "words")
    assert await looks.look() == {CHURN: 1, WORDS: 1}


@pytest.mark.asyncio
async def test_damaged_alias_is_a_problem_of_its_artifact_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    publish(store_in(tmp_path))
    publish(store_in(tmp_path), "words")
    (entry,) = (tmp_path / "models" / "churn" / "aliases" / "production").glob("*.json")
    entry.write_bytes(b"{")
    looks = looks_in(tmp_path)
    assert await looks.look() == await looks.look() == {WORDS: 1}
    assert "churn@production" in looks.problem_of(CHURN)
    assert looks.problem_of(WORDS) == ""
    assert len(caplog.records) == 1


@pytest.mark.asyncio
async def test_alias_that_has_gone_is_a_problem_if_it_was_served(tmp_path: Path) -> None:
    publish(store_in(tmp_path))
    looks = looks_in(tmp_path)
    artifacts = looks._artifacts
    artifacts.versions[WORDS] = artifacts.fetch(CHURN, 1)
    await looks.look()
    assert "words" in looks.problem_of(WORDS)
    artifacts._unpin_all()


@pytest.mark.asyncio
async def test_store_that_is_away_is_a_problem_of_each_alias(tmp_path: Path) -> None:
    publish(store_in(tmp_path))
    looks = looks_in(tmp_path, may_be_absent=False)
    with store_is_away(tmp_path):
        assert await looks.look() == {}
    assert looks.problem_of(CHURN) == looks.problem_of(WORDS) != ""
    assert looks.problem_of("words@3") == ""
    await looks.look()
    assert looks.problem_of(CHURN) == ""


@pytest.mark.asyncio
async def test_folder_that_need_not_exist_yet_is_not_away(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    looks = looks_in(tmp_path)
    assert await looks.look() == {}
    assert (looks.problem_of(CHURN), caplog.messages) == ("", [])


@pytest.mark.asyncio
async def test_store_that_does_not_answer_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(store_in(tmp_path))
    looks = looks_in(tmp_path, may_be_absent=False)
    answers = threading.Event()

    def resolve(reference: str) -> int:
        answers.wait(30)
        return 1

    monkeypatch.setattr(looks._artifacts, "resolve", resolve)
    monkeypatch.setattr(alias_looks, "SILENT", 0.01)
    look = asyncio.create_task(looks.look())
    await until(lambda: looks.problem_of(CHURN) == "it has not answered for 0.01 s")
    answers.set()
    assert await look == {CHURN: 1, WORDS: 1}
    assert looks.problem_of(CHURN) == ""
