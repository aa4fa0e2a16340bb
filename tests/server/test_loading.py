"""loading.py: the service of a target. The command line is tested in test_main.py."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from pathlib import Path

import pytest

import faulty
from tinysvc.core.errors import ConfigurationError
from tinysvc.server.loading import ImportFailed, TargetError, load_main, load_service
from tinysvc.service.service import Service

ROUTE = "from tinysvc import io_route\n@io_route('/')\nasync def root() -> None: ...\n"


@pytest.fixture(autouse=True)
def clean_imports(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Imports of one test are unknown to the next."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


def paths(service: Service) -> list[str]:
    return [path for path, _ in service.all_routes()]


def test_service_and_module_objects_are_targets() -> None:
    service = Service(faulty.io)
    assert load_service(service) is service
    assert "/predict" in paths(load_service(faulty))
    assert "/predict" in paths(load_main("faulty"))


def test_module_that_is_not_imported_is_refused() -> None:
    with pytest.raises(TargetError, match=r"run\(__name__\)"):
        load_main("nowhere")


def test_file_name_may_have_a_dash(tmp_path: Path) -> None:
    (tmp_path / "my-service.py").write_text(ROUTE)
    assert paths(load_service("my-service.py")) == ["/"]


def test_folder_mounts_each_service_under_its_name(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.py").write_text(ROUTE)
    (tmp_path / "c.py").write_text(ROUTE + "from tinysvc import Service\nservice = Service(root, prefix='/inner')\n")
    assert paths(load_service(".")) == ["/a", "/b", "/c/inner"]


def test_package_with_a_service_is_a_service_of_its_folder(tmp_path: Path) -> None:
    files = {
        "shop_package/__init__.py": "from tinysvc import Service\nfrom . import inner\nservice = Service(inner)\n",
        "shop_package/inner.py": ROUTE,
        "library_package/__init__.py": ROUTE + "raise SystemExit('a package without a service is not imported')\n",
        "tests/__init__.py": "from tinysvc import Service\nService(1)\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert paths(load_service(".", strict=True)) == ["/shop_package"]


def test_file_with_the_name_of_a_package_is_refused(tmp_path: Path) -> None:
    (tmp_path / "json.py").write_text(ROUTE)
    with pytest.raises(TargetError, match=r"the name json is taken by .*json/__init__\.py; rename"):
        load_service("json.py")


def test_imported_handlers_are_not_served_by_accident(tmp_path: Path) -> None:
    (tmp_path / "inner.py").write_text(ROUTE)
    (tmp_path / "outer.py").write_text("from inner import root\n")
    with pytest.raises(ConfigurationError, match=r"it imports root: name them in a Service"):
        load_service("outer.py")


def test_error_in_a_package_is_shown(tmp_path: Path) -> None:
    (tmp_path / "broken_package").mkdir()
    (tmp_path / "broken_package" / "__init__.py").write_text("import does_not_exist\n")
    with pytest.raises((ImportFailed, TargetError)) as raised:
        load_service("broken_package.module")
    assert "does_not_exist" in str(raised.value)


@pytest.mark.parametrize("target", ["placed_package/inner.py", "placed_package.inner"])
def test_wrong_argument_is_reported_with_its_line(target: str, tmp_path: Path) -> None:
    (tmp_path / "placed_package").mkdir()
    (tmp_path / "placed_package" / "__init__.py").touch()
    file = tmp_path / "placed_package" / "inner.py"
    file.write_text('from tinysvc import Artifact\n\nmodel = Artifact("churn@production", swap="foo")\n')
    with pytest.raises(ConfigurationError) as raised:
        load_service(target)
    assert str(raised.value).startswith(f"{file}:3: swap of an Artifact is")


def test_wrong_argument_in_a_parent_package_is_reported_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "placed_parent").mkdir()
    file = tmp_path / "placed_parent" / "__init__.py"
    file.write_text('from tinysvc import Artifact\nmodel = Artifact("churn@production", swap="foo")\n')
    with pytest.raises(ConfigurationError) as raised:
        load_service("placed_parent.inner")
    assert str(raised.value).startswith(f"{file}:2: swap of an Artifact is")


def test_place_that_a_message_names_is_not_repeated(tmp_path: Path) -> None:
    (tmp_path / "placed_once.py").write_text("from tinysvc import io_route\n@io_route('a')\nasync def a(): ...\n")
    with pytest.raises(ConfigurationError) as raised:
        load_service("placed_once.py")
    assert str(raised.value).count(".py:") == 1


def test_imported_resources_count(tmp_path: Path) -> None:
    (tmp_path / "shared_things.py").write_text("from tinysvc import io_resource\n@io_resource\ndef thing(): return 1\n")
    (tmp_path / "user_of.py").write_text("from shared_things import thing\n" + ROUTE)
    module = load_service("user_of.py")
    assert list(module.resources) == ["thing"]


def test_module_object_without_routes_is_refused() -> None:
    module = types.ModuleType("made")
    with pytest.raises(ConfigurationError, match="the module made"):
        load_service(module)


@pytest.mark.parametrize(
    "source",
    [
        "@io_route('/a')\nasync def same(): ...\n@io_route('/b')\nasync def same(): ...\n",
        "class Group:\n    @io_route('/a')\n    async def method(self): ...\n@io_route('/b')\nasync def b(): ...\n",
    ],
)
def test_handler_without_a_name_in_its_module_is_refused(tmp_path: Path, source: str) -> None:
    (tmp_path / "vanishing.py").write_text("from tinysvc import io_route\n" + source)
    with pytest.raises(ConfigurationError, match=r"(same|method) .*vanishing\.py:[234]\).*is not served"):
        load_service("vanishing.py")


def test_target_names_a_service_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "several.py").write_text(ROUTE + "from tinysvc import Service\napp = Service(root, prefix='/app')\n")
    assert paths(load_service("several.py:app")) == ["/app"]
    with pytest.raises(TargetError, match=r"called 'nothing'; name one of .* \(app\), or leave out ':nothing'"):
        load_service("several.py:nothing")


def test_file_with_the_name_of_a_built_in_module_is_refused(tmp_path: Path) -> None:
    (tmp_path / "gc.py").write_text(ROUTE)
    with pytest.raises(TargetError, match="the name gc is taken by a built-in module; rename"):
        load_service("gc.py")


def test_tests_and_other_files_of_a_folder_are_not_imported(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(ROUTE)
    for name in ("test_a", "a_test", "conftest", "setup"):
        (tmp_path / f"{name}.py").write_text(ROUTE + "raise SystemExit(name)\n")
    (tmp_path / "script.py").write_text("raise SystemExit('not a service')\n")
    assert paths(load_service(".", strict=True)) == ["/a"]


FAILING = {
    "import nothing_of_this_name": "it imports nothing_of_this_name, which is not installed; pip install",
    "1 / 0": "ZeroDivisionError: division by zero",
    "@io_route('/x')\nasync def odd(nothing: object()) -> None: ...": "odd (",
}


@pytest.mark.parametrize("fault", FAILING)
def test_failed_file_of_a_folder_is_left_out_with_a_warning(
    fault: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "a.py").write_text(ROUTE)
    (tmp_path / "b.py").write_text(ROUTE + fault + "\n")
    assert paths(load_service(".")) == ["/a"]
    (message,) = caplog.messages
    assert message.startswith("b.py is not served: ")
    assert FAILING[fault] in message
    assert "\n" not in message
    with pytest.raises(ConfigurationError):
        load_service(".", strict=True)


def test_handler_outside_the_service_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    more = "@io_route('/more')\nasync def more() -> None: ...\nfrom tinysvc import Service\n"
    (tmp_path / "a.py").write_text(ROUTE + more + "service = Service(root)\n")
    assert paths(load_service("a.py")) == ["/"]
    (message,) = caplog.messages
    assert message.startswith(f"more ({tmp_path / 'a.py'}:")
    assert "is not part of the service of its module: name it in the Service(...)" in message
    caplog.clear()
    (tmp_path / "b.py").write_text(ROUTE + more + "service = Service(Service(root), Service(more))\n")
    load_service("b.py")
    assert not caplog.messages
