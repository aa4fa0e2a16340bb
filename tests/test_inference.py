"""The examples `training` and `inference` together: what the one publishes, the other serves."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import magika
import pytest

from system import wait_until
from tinysvc import HTTPError, Pool, Service
from tinysvc.models.opening import open_store
from tinysvc.testing import serving

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
import inference
from inference import classifier, filetypes
from training import network, routes

EXAMPLES = Path(inference.__file__).parents[1]
SPIRALS = network.spirals(60)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def url(store: Path) -> Iterator[str]:
    both = Service(
        Service(routes, name="training", prefix="/training", pools={"networks": Pool(workers=1)}),
        Service(inference.service, prefix="/inference"),
    )
    with serving(both, models=str(store), models_interval=0.05, cpu_workers=1, raise_errors=False) as url:
        yield url


def trained(url: str, **query: Any) -> dict[str, Any]:
    response = httpx.post(
        f"{url}/training/trainings", content=SPIRALS, params=query, headers={"Prefer": "wait=30"}, timeout=40
    )
    assert response.status_code == 200, response.text
    summary: dict[str, Any] = response.json()
    return summary


def classified(url: str, rows: list[list[float]]) -> httpx.Response:
    return httpx.post(f"{url}/inference/classifier", json={"rows": rows}, timeout=20)


def wait_for(url: str, version: str) -> None:
    def is_served() -> bool:
        return str(classified(url, [[0.0, 0.0]]).headers.get("x-artifact")) == version

    wait_until(is_served, f"{version} is served")


def test_trained_network_is_served_without_a_restart(url: str, store: Path) -> None:
    refused = classified(url, [[0.0, 0.0]])
    assert (refused.status_code, refused.json()["detail"][:40]) == (503, "There is no classifier@production yet: t")
    assert trained(url, epochs=40, alias="production")["published"] == "classifier@1"
    wait_for(url, "classifier@1")
    *lines, _ = SPIRALS.decode().split("\n")[1:]
    points = [(line.split(",")[:2], line.split(",")[2]) for line in lines]
    found = classified(url, [[float(x), float(y)] for (x, y), _ in points]).json()
    right = [each["label"] == label for each, (_, label) in zip(found, points, strict=True)]
    assert sum(right) > 0.7 * len(points)
    refused = classified(url, [[0.0, 0.0], [1.0]])
    assert (refused.status_code, refused.json()["detail"]) == (422, "Row 1 has 1 numbers; the network takes 2.")
    assert classified(url, [[1e30, -1e30]]).json()[0]["probability"] > 0
    assert classified(url, [[1e31, 0.0]]).json()["errors"][0]["place"] == "$.rows[0][0]"
    # one in staging waits for its promotion
    assert trained(url, epochs=1)["published"] == "classifier@2"
    assert httpx.get(f"{url}/inference/classifier").json() == {"served": 1, "published": [1, 2]}
    open_store(str(store)).move_alias("classifier", "production", 2)
    wait_for(url, "classifier@2")


def test_file_types_are_those_of_magika(url: str, store: Path) -> None:
    def response_to(content: bytes) -> httpx.Response:
        return httpx.post(f"{url}/inference/filetypes", content=content, timeout=20)

    assert response_to(b"").status_code == 503
    assert filetypes.publish(str(store)) == 1
    wait_until(lambda: response_to(b"x").headers.get("x-artifact") == "filetypes@1", "the model is served")
    reference = magika.Magika()
    for path in (EXAMPLES / "hello.py", EXAMPLES / "training" / "page.html", EXAMPLES.parent / "Makefile"):
        content = path.read_bytes()
        expected, found = reference.identify_bytes(content), response_to(content).json()
        assert found == {"type": str(expected.dl.label), "probability": pytest.approx(expected.score, abs=1e-3)}


def test_disagreement_is_the_share_of_other_labels() -> None:
    red, blue = {"label": "red", "probability": 0.9}, {"label": "blue", "probability": 0.6}
    assert classifier.disagreement([red, red, blue, blue], [red, blue, blue, blue]) == 0.25


def test_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filetypes, "MISSING", "This needs onnxruntime: pip install 'tinysvc[onnx]'")
    with pytest.raises(HTTPError, match="501 This needs onnxruntime"):
        filetypes.filetype([b""], None)


def test_network_that_finds_no_probabilities_may_not_serve(tmp_path: Path) -> None:
    table = network.read_table(SPIRALS)
    fitted = network.Network(2, 3)
    fitted.write(tmp_path / "network.npz", table)
    assert classifier.is_sane(classifier.Network.read(tmp_path))
    fitted.weights[1][:] = float("nan")
    fitted.write(tmp_path / "network.npz", table)
    assert not classifier.is_sane(classifier.Network.read(tmp_path))
