"""served_artifacts.py: what a server process serves at its start, and what it keeps."""

from __future__ import annotations

import logging
import pickle
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Annotated

import pytest

from swap_pools import publish, served_artifacts, store_in, store_is_away
from tinysvc import Artifact, Service, cpu_resource, cpu_route
from tinysvc.core.errors import ConfigurationError
from tinysvc.core.settings import Settings
from tinysvc.models.artifact import Artifact as Marker
from tinysvc.runtime.served_artifacts import ServedArtifacts, copies_folder, drains, wanted_by
from tinysvc.runtime.swap_memory import state_of
from tinysvc.service.plan import plans_of

REFERENCE = "churn@production"


async def opened(stack: AsyncExitStack, folder: Path, *references: str, **wanted: bool) -> ServedArtifacts:
    artifacts = served_artifacts(folder, *(references or (REFERENCE,)), **wanted)
    await artifacts.open(stack)
    return artifacts


@pytest.mark.asyncio
async def test_start_serves_what_the_alias_names(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    publish(store)
    second = publish(store, content="second")
    async with AsyncExitStack() as stack:
        artifacts = await opened(stack, tmp_path, REFERENCE, "churn@1")
        assert (artifacts.served(REFERENCE), artifacts.served("churn@1"), artifacts.served("other@1")) == (2, 1, None)
        assert Path(artifacts.versions[REFERENCE].path, "number.txt").read_text() == "second"
        assert second == 2
        assert not artifacts.copies.sweep(keep=0, older_than=-1)  # both are pinned


@pytest.mark.asyncio
async def test_copy_is_served_if_the_store_is_away_at_the_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    publish(store_in(tmp_path))
    async with AsyncExitStack() as stack:
        await opened(stack, tmp_path)
    with store_is_away(tmp_path):
        async with AsyncExitStack() as stack:
            artifacts = await opened(stack, tmp_path)
            assert (artifacts.served(REFERENCE), artifacts.seen) == (1, {})
    assert "does not exist; churn@1 is served, from the local copy" in caplog.messages[-1]


@pytest.mark.asyncio
async def test_start_fails_without_store_and_copy(tmp_path: Path) -> None:
    remedy = r"publish it \(python -m tinysvc.models publish churn PATH --alias production\)"
    with pytest.raises(ConfigurationError, match=f"churn@production cannot be served: .* does not exist; {remedy}"):
        await opened(AsyncExitStack(), tmp_path)


def damage(folder: Path) -> None:
    (blob,) = (folder / "models" / "churn" / "blobs").rglob("*")
    blob.chmod(0o600)
    blob.write_bytes(b"WEIGHTS")


def remove_manifest(folder: Path) -> None:
    (folder / "models" / "churn" / "1.json").unlink()


@pytest.mark.parametrize(("harm", "sentence"), [(damage, "SHA-256"), (remove_manifest, "has no churn@1")])
@pytest.mark.asyncio
async def test_start_fails_with_a_damaged_or_missing_version(tmp_path: Path, harm: object, sentence: str) -> None:
    publish(store_in(tmp_path))
    assert callable(harm)
    harm(tmp_path)
    for may_be_absent in (False, True):
        with pytest.raises(ConfigurationError, match=f"churn@production cannot be served: .*{sentence}"):
            await opened(AsyncExitStack(), tmp_path, may_be_absent=may_be_absent)


@pytest.mark.asyncio
async def test_artifact_that_need_not_exist_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with AsyncExitStack() as stack:
        artifacts = await opened(stack, tmp_path, may_be_absent=True)  # there is no store
        publish(store_in(tmp_path), alias="staging")
        other = await opened(stack, tmp_path, may_be_absent=True)  # there is no such alias
        assert (artifacts.versions, other.versions) == ({}, {})
    assert all("it is None until it exists" in each for each in caplog.messages)


@pytest.mark.asyncio
async def test_pickle_is_refused_unless_all_parameters_allow_it(tmp_path: Path) -> None:
    with store_in(tmp_path).publish("churn", alias="production") as new:
        (new.path / "model.bin").write_bytes(pickle.dumps([1, 2, 3], 4))
    with pytest.raises(ConfigurationError, match="has pickles"):
        await opened(AsyncExitStack(), tmp_path)
    async with AsyncExitStack() as stack:
        assert (await opened(stack, tmp_path, allow_pickle=True)).served(REFERENCE) == 1


@pytest.mark.asyncio
async def test_restarted_process_serves_the_version_before_one_that_failed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = store_in(tmp_path)
    publish(store)
    async with AsyncExitStack() as stack:
        artifacts = await opened(stack, tmp_path)
        bad = artifacts.fetch(REFERENCE, publish(store, content="bad"))
        artifacts.turns.note_failed(state_of({REFERENCE: bad}))
        assert (await opened(stack, tmp_path)).served(REFERENCE) == 1
    assert "churn@2 has failed before; churn@1 is served" in caplog.text


@pytest.mark.asyncio
async def test_old_copies_are_pinned_until_they_are_released(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    publish(store)
    async with AsyncExitStack() as stack:
        artifacts = await opened(stack, tmp_path)
        first = artifacts.versions
        await artifacts.note_served({REFERENCE: artifacts.fetch(REFERENCE, publish(store, content="2"))})
        artifacts.unpin(first, ())
        artifacts.unpin({}, {"churn@1"})
        assert (artifacts.served(REFERENCE), artifacts.pinned) == (2, ["churn@1", "churn@2"])
        assert artifacts.copies.sweep(keep=0, older_than=-1) == []
        artifacts.unpin({}, {"churn@7"})
        assert artifacts.pinned == ["churn@2"]
        assert artifacts.copies.sweep(keep=0, older_than=-1) == ["churn@1"]


@pytest.mark.asyncio
async def test_folder_of_copies_that_cannot_be_written_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    publish(store_in(tmp_path))
    async with AsyncExitStack() as stack:
        artifacts = await opened(stack, tmp_path)

        def fail(*_: object) -> None:
            raise OSError(30, "Read-only file system")

        monkeypatch.setattr(artifacts.copies, "remember", fail)
        await artifacts.note_served(artifacts.versions)
    assert "cannot be written: [Errno 30] Read-only file system" in caplog.text
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


def test_parameters_with_one_reference_are_one_artifact() -> None:
    @cpu_resource
    def strict(model: Annotated[Path, Artifact(REFERENCE)]) -> str:
        return ""

    @cpu_resource
    def lax(model: Annotated[Path | None, Marker(REFERENCE, "drain", allow_pickle=True)]) -> str:
        return ""

    @cpu_route("/both")
    def both(strict: str, lax: str) -> str:
        return ""

    @cpu_route("/lax")
    def only_lax(lax: str) -> str:
        return ""

    (both_plan,) = plans_of(Service(both, strict, lax))
    (lax_plan,) = plans_of(Service(only_lax, lax))
    for plans in ([both_plan, lax_plan], [lax_plan, both_plan]):
        wanted = wanted_by(plans)[REFERENCE]
        assert (wanted.allow_pickle, wanted.may_be_absent) == (False, False)
    assert wanted_by([lax_plan])[REFERENCE][1:] == (True, True, False)
    assert drains([lax_plan])


@pytest.mark.asyncio
async def test_server_starts_without_a_candidate(tmp_path: Path) -> None:
    @cpu_resource
    def loaded(model: Annotated[Path, Marker(REFERENCE), Marker("churn@candidate", share=0.1)]) -> str:
        return ""

    @cpu_route("/")
    def handler(loaded: str) -> str:
        return ""

    publish(store_in(tmp_path))
    publish(store_in(tmp_path), alias="candidate")
    wanted = wanted_by(plans_of(Service(handler, loaded)))
    assert [each.is_candidate for each in wanted.values()] == [False, True]
    artifacts = ServedArtifacts(Settings(models=f"{tmp_path}/models"), wanted)
    async with AsyncExitStack() as stack:
        await artifacts.open(stack)
        assert (artifacts.served(REFERENCE), artifacts.served("churn@candidate")) == (1, None)


def test_copies_are_in_the_store_or_in_the_cache_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert copies_folder(Settings(models_cache="/copies", models="s3://a/b")) == Path("/copies")
    assert copies_folder(Settings(models=str(tmp_path / "models"))) == tmp_path / "models" / ".cache"
    in_cache = [copies_folder(Settings(models=url)) for url in ("s3://a/b", "s3://a/c", "/proc/1/models")]
    assert {each.parent for each in in_cache} == {tmp_path / "cache" / "tinysvc" / "models"}
    assert len(set(in_cache)) == 3
