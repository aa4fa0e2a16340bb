"""artifact_labels.py: the header X-Artifact of single responses and of batches."""

from __future__ import annotations

from typing import Any

import pytest

from tinysvc.models.artifact_version import ArtifactVersion
from tinysvc.pool.program import Reply
from tinysvc.runtime.artifact_labels import joined_labels, label_of, labelled
from tinysvc.runtime.cpu_messages import BatchPart, BatchReply, DurableReply, ResponseHead


def version(name: str, number: int) -> ArtifactVersion:
    return ArtifactVersion(name, number, f"/copies/{name}", f"{name}{number}", {})


def test_label_names_each_version_once_and_leaves_out_what_does_not_exist() -> None:
    wanted = {"weights": {"a": "churn@production", "b": "words@3"}, "more": {"c": "churn@8", "d": "gone@staging"}}
    versions = {"churn@production": version("churn", 8), "churn@8": version("churn", 8), "words@3": version("words", 3)}
    assert label_of(wanted, versions) == "churn@8, words@3"
    assert joined_labels([]) == ""


KEPT = ("x-own", "1")


def head() -> ResponseHead:
    return ResponseHead(200, None, [KEPT])


@pytest.mark.parametrize("meta", [head(), DurableReply(200, None, [KEPT])])
def test_response_gets_the_header_though_the_author_returns_one_object_again(meta: Any) -> None:
    lines = meta.headers
    run = labelled(lambda meta, body: Reply(meta, b""), "churn@8")
    assert run(meta, b"").meta.headers == [KEPT, ("x-artifact", "churn@8")]
    assert lines == [KEPT]


def test_each_response_of_a_batch_gets_the_header() -> None:
    batch = BatchReply([BatchPart(0, head()), BatchPart(0, None)])
    labelled(lambda meta, body: Reply(batch, b""), "churn@8")(None, b"")
    assert batch.parts[0].head is not None
    assert batch.parts[0].head.headers[-1] == ("x-artifact", "churn@8")
    assert batch.parts[1].head is None
