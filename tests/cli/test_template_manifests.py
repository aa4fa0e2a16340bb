"""The compose file and the manifests for Kubernetes of a new service: valid, and consistent with its image."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from commands import served, tinysvc
from tinysvc.cli.scaffold import create
from tinysvc.core.settings import Settings, load_settings

KUBERNETES = "1.30.0"
"""The first version with preStop sleep."""


@pytest.fixture
def new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    create("my_First")
    return tmp_path / "my_First"


def objects(file: Path) -> dict[str, Any]:
    """The objects of a file by kind. All have a name that Kubernetes allows."""
    found = {each["kind"]: each for each in yaml.safe_load_all(file.read_text())}
    assert {each["metadata"]["name"] for each in found.values()} == {"my-first"}
    return found


def settings_of(variables: dict[str, str]) -> Settings:
    assert all(name.startswith("TINYSVC_") for name in variables)
    return load_settings({}, variables)


@pytest.mark.parametrize("name", ["kubernetes.yaml", "hpa.yaml"])
def test_manifests_keep_to_the_schemas_of_kubernetes(new: Path, name: str) -> None:
    validation = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")
    for each in objects(new / name).values():
        validation.validate(each, KUBERNETES, strict=True)


def test_pods_have_probes_and_time_to_end(new: Path) -> None:
    found = objects(new / "kubernetes.yaml")
    pod = found["Deployment"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    settings = settings_of({each["name"]: each["value"] for each in container["env"]})
    paths = {name: container[f"{name}Probe"]["httpGet"]["path"] for name in ("startup", "readiness", "liveness")}
    assert paths == {"startup": "/readyz", "readiness": "/readyz", "liveness": "/livez"}
    before = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    needed = before + settings.drain_delay + settings.shutdown_timeout
    assert needed + 8 <= pod["terminationGracePeriodSeconds"]
    readiness = container["readinessProbe"]
    assert settings.drain_delay >= readiness["periodSeconds"] * readiness["failureThreshold"]


def test_pods_are_selected_by_their_labels(new: Path) -> None:
    found = objects(new / "kubernetes.yaml")
    labels = found["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert found["Deployment"]["spec"]["selector"]["matchLabels"] == labels
    assert found["Service"]["spec"]["selector"] == labels
    assert found["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == labels
    assert found["PodDisruptionBudget"]["spec"]["minAvailable"] < found["Deployment"]["spec"]["replicas"]


def test_container_needs_no_rights(new: Path) -> None:
    pod = objects(new / "kubernetes.yaml")["Deployment"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    compose = yaml.safe_load((new / "compose.yaml").read_text())["services"]["my-first"]
    assert (compose["read_only"], compose["cap_drop"]) == (True, ["ALL"])


def test_settings_fit_the_memory_of_the_container(new: Path) -> None:
    (container,) = objects(new / "kubernetes.yaml")["Deployment"]["spec"]["template"]["spec"]["containers"]
    compose = yaml.safe_load((new / "compose.yaml").read_text())["services"]["my-first"]
    assert container["resources"]["limits"]["memory"] == "512Mi"
    assert compose["mem_limit"] == "512m"
    for variables in ({each["name"]: each["value"] for each in container["env"]}, compose["environment"]):
        settings = settings_of(variables)
        assert settings.max_body_memory + settings.max_cache_size < 512 * 2**20 / 2


def test_autoscalers_read_the_queue_of_this_deployment(new: Path) -> None:
    hpa = objects(new / "hpa.yaml")["HorizontalPodAutoscaler"]["spec"]
    keda = objects(new / "keda.yaml")["ScaledObject"]["spec"]
    assert hpa["scaleTargetRef"]["name"] == keda["scaleTargetRef"]["name"] == "my-first"
    assert hpa["metrics"][0]["pods"]["metric"]["name"] == "tinysvc_pool_queue_length"
    (trigger,) = keda["triggers"]
    assert trigger["type"] == "prometheus"
    assert {"serverAddress", "query", "threshold"} == trigger["metadata"].keys()
    assert 'tinysvc_pool_queue_length{app="my-first"}' in trigger["metadata"]["query"]


def test_ports_are_those_of_the_image(new: Path) -> None:
    (container,) = objects(new / "kubernetes.yaml")["Deployment"]["spec"]["template"]["spec"]["containers"]
    ports = [str(port["containerPort"]) for port in container["ports"]]
    dockerfile = (new / "Dockerfile").read_text()
    assert f"EXPOSE {' '.join(ports)}\n" in dockerfile
    assert "TINYSVC_PORT=8000" in shlex.split(dockerfile.partition("\nENV ")[2].partition("\n")[0])
    compose = yaml.safe_load((new / "compose.yaml").read_text())
    assert compose["services"]["my-first"]["ports"] == ["127.0.0.1:8000:8000"]
    content = yaml.safe_load(compose["configs"]["prometheus"]["content"])
    assert content["scrape_configs"][0]["static_configs"] == [{"targets": ["my-first:9100"]}]
    prometheus = compose["services"]["prometheus"]
    assert prometheus["configs"][0]["source"] in compose["configs"]


READ_ONLY = (
    "mount --make-rprivate / && mount -o remount,bind,ro / && mount -t tmpfs -o ro none /dev/shm "
    "&& ! touch /tmp/x 2>/dev/null "
)


def in_read_only_system(*arguments: str) -> tuple[str, ...]:
    """Arguments of a Python that starts another one in a mount namespace where nothing can be written."""
    inner = shlex.join([sys.executable, *arguments])
    return ("-c", f"import os; os.execvp('unshare', ['unshare', '-m', 'sh', '-c', {READ_ONLY + '&& exec ' + inner!r}])")


def test_service_runs_on_a_read_only_file_system_without_tmp(new: Path) -> None:
    probe = subprocess.run([sys.executable, *in_read_only_system("-c", "")], capture_output=True, text=True)
    if probe.returncode:
        pytest.skip(f"no read-only mount can be made here: {probe.stderr}")
    variables = {"TINYSVC_METRICS": "/metrics", "PYTHONDONTWRITEBYTECODE": "1"}
    with served(*in_read_only_system(*tinysvc("my_First.py")), cwd=new, **variables) as server:
        text = "kind " * 200_000  # a body that goes through shared memory
        answer = httpx.post(f"{server.url}/score", json={"text": text}, timeout=30)
        assert answer.json()["words"] == 200_000
        metrics = server.get("/metrics").text  # with the metric of the autoscalers
        assert 'tinysvc_pool_queue_length{pool="default"} 0' in metrics
