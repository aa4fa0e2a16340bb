"""artifact_parameters.py: artifacts are parameters of cpu resources, and every mistake is found at start-up."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import pytest

from tinysvc import Artifact, Service, cpu_resource, cpu_route, io_resource, io_route
from tinysvc.core.errors import ConfigurationError
from tinysvc.service.plan import Plan, plans_of
from tinysvc.service.routes import Resource, recorded

Model = Annotated[Path, Artifact("churn@production")]


def plan_with(resource: Callable[..., Any], **others: Any) -> Plan:
    """The plan of a cpu handler that takes the resource, whose name must be `loaded`."""

    @cpu_route("/")
    def handler(loaded: Any) -> str:
        return "done"

    return next(plans_of(Service(handler, resource, *others.values())))


def test_plan_names_the_artifacts_of_all_resources_that_a_handler_needs() -> None:
    @cpu_resource(shared=True)
    def words(model: Model, other: Annotated[Path | None, Artifact("words@3")]) -> str:
        return ""

    @cpu_resource
    def loaded(words: str) -> str:
        return words

    artifacts = plan_with(loaded, words=words).artifacts
    found = {key: (each.artifact.reference, each.may_be_absent) for key, each in artifacts["words"].items()}
    assert found == {"model": ("churn@production", False), "other": ("words@3", True)}
    assert list(artifacts) == ["words"]


def test_artifact_wins_over_a_resource_of_its_name() -> None:
    @cpu_resource
    def model() -> str:
        return "another"

    @cpu_resource
    def loaded(model: Model) -> str:
        return str(model)

    assert list(plan_with(loaded, model=model).cpu_resources) == ["loaded"]


def test_override_of_a_resource_needs_no_artifact_and_no_check() -> None:
    @cpu_resource(check=bool)
    def loaded(model: Model) -> str:
        return str(model)

    @cpu_route("/")
    def handler(loaded: Any) -> str:
        return "done"

    plan = next(plans_of(Service(handler, loaded).override(loaded="")))
    assert (plan.artifacts, plan.cpu_resources["loaded"].check) == ({}, None)


def in_io_resource() -> Plan:
    @io_resource
    def loaded(model: Model) -> str:
        return ""

    @io_route("/")
    async def handler(loaded: str) -> str:
        return loaded

    return next(plans_of(Service(handler, loaded)))


def in_io_handler() -> Plan:
    @io_route("/")
    async def handler(model: Model) -> str:
        return ""

    return next(plans_of(Service(handler)))


def in_cpu_handler() -> Plan:
    @cpu_route("/")
    def handler(model: Model) -> str:
        return ""

    return next(plans_of(Service(handler)))


def as_text() -> Plan:
    @cpu_resource
    def loaded(model: Annotated[str, Artifact("churn@7")]) -> str:
        return ""

    return plan_with(loaded)


def twice() -> Plan:
    @cpu_resource
    def loaded(model: Annotated[Path, Artifact("churn@7"), Artifact("churn@8")]) -> str:
        return ""

    return plan_with(loaded)


def only_a_candidate() -> Plan:
    @cpu_resource
    def loaded(model: Annotated[Path, Artifact("churn@7", share=0.1)]) -> str:
        return ""

    return plan_with(loaded)


def candidate_first() -> Plan:
    @cpu_resource
    def loaded(model: Annotated[Path, Artifact("churn@8", share=0.1), Artifact("churn@7")]) -> str:
        return ""

    return plan_with(loaded)


def three() -> Plan:
    @cpu_resource
    def loaded(
        model: Annotated[Path, Artifact("churn@7"), Artifact("churn@8", share=0.1), Artifact("churn@9", share=0.1)],
    ) -> str:
        return ""

    return plan_with(loaded)


def candidate_that_serves() -> Plan:
    @cpu_resource
    def loaded(model: Annotated[Path, Artifact("churn@7"), Artifact("churn@7", share=0.1)]) -> str:
        return ""

    return plan_with(loaded)


def two_candidates() -> Plan:
    @cpu_resource
    def loaded(
        model: Annotated[Path, Artifact("churn@7"), Artifact("churn@8", share=0.1)],
        words: Annotated[Path, Artifact("words@1"), Artifact("words@2", share=0.1)],
    ) -> str:
        return ""

    plan = plan_with(loaded)
    assert plan.candidate is None
    return plan


def test_route_has_the_candidate_of_its_resources() -> None:
    @cpu_resource
    def loaded(model: Annotated[Path, Artifact("churn@7"), Artifact("churn@8", share=0.1)], words: Model) -> str:
        return ""

    plan = plan_with(loaded)
    assert plan.candidate == Artifact("churn@8", share=0.1)
    assert plan.artifacts["loaded"]["model"].candidate == plan.candidate
    assert plan.artifacts["loaded"]["words"].candidate is None


def without_call() -> Plan:
    @cpu_resource
    def loaded(model: Annotated[Path, Artifact]) -> str:
        return ""

    return plan_with(loaded)


def without_annotated() -> Plan:
    @cpu_resource
    def loaded(model: Any) -> str:
        return ""

    loaded.__annotations__["model"] = Artifact("churn@7")
    return plan_with(loaded)


def wrong_reference() -> Plan:
    @cpu_resource
    def loaded(model: Annotated[Path, Artifact("churn")]) -> str:
        return ""

    return plan_with(loaded)


@pytest.mark.parametrize(
    ("service", "sentence"),
    [
        (in_io_resource, "loaded .*only a cpu_resource takes.*make it a @cpu_resource"),
        (in_io_handler, "handler .*model is an Artifact, which only a cpu_resource takes.*@cpu_resource def loaded"),
        (in_cpu_handler, "handler .*model is an Artifact, which only a cpu_resource takes.*take `loaded` here"),
        (as_text, "loaded .*as a pathlib.Path; annotate it as in Annotated"),
        (twice, "loaded .*has 2 Artifacts that serve; leave one that serves"),
        (only_a_candidate, "loaded .*has only a candidate, with shadow or share; leave one that serves"),
        (candidate_first, "loaded .*takes the Artifact that serves, and behind it at most one candidate"),
        (three, "loaded .*behind it at most one candidate"),
        (candidate_that_serves, r"loaded .*is the version that serves, churn@7; give it an alias of its own"),
        (two_candidates, r"handler .*candidates Artifact\('churn@8'\), Artifact\('words@2'\); a route tries one"),
        (without_annotated, "loaded .*has an Artifact as its type; write it as in Annotated"),
        (without_call, "loaded .*names the class Artifact; say which artifact"),
        (wrong_reference, r"loaded .*no artifact: Artifact\('churn'\): .*churn@production"),
    ],
)
def test_mistake_is_named_with_its_remedy(service: Callable[[], Plan], sentence: str) -> None:
    with pytest.raises(ConfigurationError, match=sentence):
        service()


async def slow_check(value: object) -> bool:
    return True


@pytest.mark.parametrize("check", [3, slow_check])
def test_check_is_a_plain_function(check: Any) -> None:
    def loaded() -> str:
        return ""

    with pytest.raises(ConfigurationError, match=r"loaded .*check takes a plain function"):
        cpu_resource(check=check)(loaded)


def test_check_is_recorded() -> None:
    @cpu_resource(check=bool)
    def loaded() -> str:
        return ""

    (resource,) = [each for each in recorded(loaded) if isinstance(each, Resource)]
    assert resource.check is bool


def test_service_without_artifacts_imports_no_models() -> None:
    code = """if True:
        import sys
        from typing import Annotated
        from tinysvc import Query, Service, cpu_resource, cpu_route
        from tinysvc.service.plan import plans_of
        @cpu_resource
        def loaded() -> str: return ""
        @cpu_route("/")
        def handler(loaded: str, n: Annotated[int, Query()]) -> str: return ""
        list(plans_of(Service(handler, loaded)))
        import tinysvc.server.server
        print([name for name in sys.modules if name.startswith("tinysvc.models")])
    """
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert found.stdout == "[]\n", found.stdout + found.stderr
