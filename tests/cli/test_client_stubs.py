"""cli/client_stubs.py: the printed module type-checks, keeps its format, and calls the service that it is made from."""

from __future__ import annotations

import ast
import functools
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import client_app
from client_modules import EXAMPLES, ROOT, printed
from commands import failed
from tinysvc.cli.client_stubs import client_module, docstring, module_of
from tinysvc.server.loading import load_service

FASTAPI = ROOT / "tests" / "support" / "fastapi_openapi.json"


# The text


@pytest.fixture(scope="module")
def printed_modules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the modules of each example, of hard cases, and of a FastAPI service."""
    folder = tmp_path_factory.mktemp("modules")
    for target in [*EXAMPLES, Path(client_app.__file__), FASTAPI]:
        text = client_module(str(target), functools.partial(load_service, str(target)), {})
        (folder / f"{target.stem}_client.py").write_text(text)
    return folder


@pytest.mark.timeout(240)
def test_mypy_strict_accepts_it(printed_modules: Path) -> None:
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--cache-dir", "mypy-cache", "."]
    done = subprocess.run(command, cwd=printed_modules, capture_output=True, text=True, timeout=200)
    assert re.fullmatch(rf"Success: no issues found in {len(EXAMPLES) + 2} source files\n", done.stdout), done.stdout


@pytest.mark.timeout(240)
def test_pyright_strict_accepts_it(printed_modules: Path) -> None:
    settings = {"typeCheckingMode": "strict", "include": ["."]}
    (printed_modules / "pyrightconfig.json").write_text(json.dumps(settings))
    command = [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable]
    done = subprocess.run(command, cwd=printed_modules, capture_output=True, text=True, timeout=200)
    if not done.stdout:
        pytest.skip(f"pyright cannot be run here: {done.stderr.strip()[-200:]}")
    found = json.loads(done.stdout)
    assert found["generalDiagnostics"] == []
    assert found["summary"]["filesAnalyzed"] == len(EXAMPLES) + 2


@pytest.mark.parametrize("width", [88, 100, 120])
def test_formatter_changes_nothing(printed_modules: Path, width: int) -> None:
    command = [sys.executable, "-m", "ruff", "format", "--isolated", f"--line-length={width}", "--check", "."]
    done = subprocess.run(command, cwd=printed_modules, capture_output=True, text=True, timeout=50)
    assert done.returncode == 0, done.stdout


def test_linter_finds_nothing(printed_modules: Path) -> None:
    rules = "A001,B,E4,E7,E9,F,I,N802,N803,PIE,RUF,UP,W"
    command = [sys.executable, "-m", "ruff", "check", "--isolated", f"--select={rules}", "--target-version=py311", "."]
    done = subprocess.run(command, cwd=printed_modules, capture_output=True, text=True, timeout=50)
    assert done.returncode == 0, done.stdout


def test_equal_documents_give_equal_text(printed_modules: Path, tmp_path: Path) -> None:
    target = Path(client_app.__file__)
    first = (printed_modules / "client_app_client.py").read_text()
    assert [printed(target, tmp_path, PYTHONHASHSEED=seed) for seed in ("1", "2")] == [first, first]


def test_docstring_says_how_to_make_it_again(tmp_path: Path) -> None:
    (tmp_path / "my shop.json").write_text('{"openapi": "3.1.0", "info": {"title": "My Shop", "version": "7"}}')
    text = printed("my shop.json", tmp_path)
    assert text.startswith(
        '"""Functions that call My Shop, version 7.\n\nMade from my shop.json. To make it again:\n\n'
        '    python -m tinysvc --client \'my shop.json\'\n"""\n'
    )
    assert text.endswith('\n\nservice = Remote("My-Shop")\n')


DOCUMENT: dict[str, Any] = {
    "openapi": "3.1.0",
    "info": {"title": "x", "version": "1"},
    "paths": {
        "/things/{id}": {
            "get": {
                "operationId": "thing",
                "summary": "One thing.",
                "description": "It is a thing.",
                "parameters": [{"name": "id", "in": "path", "required": True, "schema": {}, "description": "Its\nid."}],
                "responses": {
                    "200": {"description": "", "content": {"application/json": {"schema": {"type": "integer"}}}},
                    "404": {"description": "None."},
                },
                "x-tinysvc": {"idempotent": False, "hedge": 0.05, "timeout": 1.5},
            }
        }
    },
}


def test_text_of_a_function() -> None:
    text = module_of(DOCUMENT, "x", "unix:/run/x.sock", "make x")
    assert text.endswith('''
service = Remote("x", "unix:/run/x.sock")


async def thing(*, id: Any) -> int:
    """One thing.

    It is a thing.

    Args:
        id: Its id.

    Raises:
        HTTPError: 404. None.
    """
    found: int = await service.call(
        "GET",
        "/things/{id}",
        int,
        path={"id": id},
        idempotent=False,
        hedge=0.05,
        timeout=1.5,
    )
    return found
''')


@pytest.mark.parametrize(
    "text",
    [
        "plain",
        'ends with "',
        'three """',
        "back\\slash",
        "a\0b\x1b",
        "tab\tand\r\nline",
        "\u2028",
        "'''",
        '"""',
        "\\",
        '\\"',
        '""""',
    ],
)
def test_docstring_is_the_text(text: str) -> None:
    namespace: dict[str, Any] = {}
    exec(f"def function():\n{docstring('x' + text, '    ')}\n", namespace)
    kept = re.sub(r"[\0\x1b]", "", f"x{text}").expandtabs(4).replace("\r\n", "\n").replace("\u2028", " ").rstrip()
    assert namespace["function"].__doc__.strip().replace("\n    ", "\n") == kept


def test_long_lines_are_broken(tmp_path: Path) -> None:
    values = [f'the value, number "{number}"' for number in range(9)] + list(range(3))
    response = {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Many"}}}}
    query = [{"in": "query", "name": f"parameter_{number}", "schema": {"type": "string"}} for number in range(6)]
    operation = {"operationId": "many", "parameters": query, "responses": {"200": response}}
    schemas = {"Many": {"enum": values}}
    text = module_of({"paths": {"/": {"get": operation}}, "components": {"schemas": schemas}}, "x", "", "make x")
    assert "\nMany: TypeAlias = Literal[\n    'the value, number \"0\"',\n" in text
    assert "\n    2,\n]\n" in text
    assert '\n        query={\n            "parameter_0": parameter_0,\n' in text
    (tmp_path / "many.py").write_text(text)
    for width in ("88", "120"):
        command = [sys.executable, "-m", "ruff", "format", "--isolated", f"--line-length={width}", "--check", "many.py"]
        assert subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=50).returncode == 0


LEAVING = ['"""', "\\", '\\"', "\n", "\r", "'", '"', "{x}", "\n\nimport os", "#", "]", "\ud800", "\x0c", "nan"]
"""Texts that could leave their place in the code."""

texts = st.text() | st.sampled_from(LEAVING)


def hostile_document(one: str, other: str, value: Any) -> dict[str, Any]:
    """A document with these texts in each place."""
    text, reference = one + other, {"$ref": "#/components/schemas/A"}
    schema = {"type": "object", "title": text, "description": text, "properties": {one: {"default": value}, other: {}}}
    union = {"oneOf": [reference], "discriminator": {"propertyName": one, "mapping": {other: "A"}}}
    values = {"enum": [one, other, None], "default": value}
    places = {"path": one, "query": other, "header": text, "cookie": other}
    operation = {
        "operationId": text,
        "summary": one,
        "description": other,
        "parameters": [{"in": each, "name": places[each], "description": text, "schema": values} for each in places],
        "requestBody": {"content": {f"{one}/{other}": {}}, "description": text},
        "responses": {
            "200": {"content": {"application/json": {"schema": schema}}},
            "201": {"content": {"application/json": {"schema": union}}},
            "404": {"description": text},
        },
        "x-tinysvc": {"hedge": value, "timeout": value, "idempotent": value},
    }
    form = {"content": {"multipart/form-data": {"schema": {"properties": {one: values, other: schema}}}}}
    paths = {
        f"/{text}": {"get": operation, "post": {"requestBody": form, "responses": {}}},
        f"/{other}\n": {"delete": {"responses": {"101": {}}}},
    }
    tagged = {"type": "object", "properties": {one: {"const": other}}}
    components = {"schemas": {"A": tagged, text: schema}}
    return {"info": {"title": text, "version": other}, "paths": paths, "components": components}


@settings(max_examples=200, deadline=None)
@given(texts, texts, st.integers() | st.floats() | texts)
def test_texts_of_the_document_stay_in_their_place(one: str, other: str, value: Any) -> None:
    tree = ast.parse(module_of(hostile_document(one, other, value), one, other, one))
    first, *statements = tree.body
    assert isinstance(first, ast.Expr)  # the docstring
    definitions = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    allowed = (ast.Import, ast.ImportFrom, ast.Assign, ast.AnnAssign, *definitions)
    assert all(isinstance(each, allowed) for each in statements)
    found = list(ast.walk(tree))
    calls = {ast.unparse(each.func) for each in found if isinstance(each, ast.Call)}
    assert calls <= {"Remote", "service.call", "msgspec.field"}
    imported = {name.name for each in found if isinstance(each, ast.Import) for name in each.names}
    assert imported <= {"datetime", "decimal", "msgspec", "uuid"}
    exec(compile(tree, "module", "exec"), {"__name__": "module"})


# Mistakes


@pytest.mark.parametrize(
    ("target", "status", "says"),
    [
        ("missing.py", 2, "there is no file or folder 'missing.py'"),
        ("http://127.0.0.1:1", 2, "http://127.0.0.1:1 cannot be reached: Connection refused; is the service running?"),
        ("unix:/no/socket", 2, "unix:/no/socket cannot be reached: No such file or directory"),
        ("old.json", 2, "old.json is a document of OpenAPI 3.0.0, but stubs are made from 3.1"),
        ("wrong.json", 2, "wrong.json is no valid OpenAPI document: AttributeError:"),
        ("reference.json", 2, "the document refers to #/components/schemas/X, which it does not have"),
        ("broken.py", 3, "ZeroDivisionError"),
    ],
)
def test_mistake_is_explained(target: str, status: int, says: str, tmp_path: Path) -> None:
    (tmp_path / "old.json").write_text('{"openapi": "3.0.0", "paths": {}}')
    (tmp_path / "wrong.json").write_text('{"openapi": "3.1.0", "paths": {"/": {"get": []}}}')
    body = {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/X"}}}}
    paths = {"/": {"post": {"requestBody": body}}}
    (tmp_path / "reference.json").write_text(json.dumps({"openapi": "3.1.0", "paths": paths}))
    (tmp_path / "broken.py").write_text("1 / 0")
    found = failed("-m", "tinysvc", "--client", target, cwd=tmp_path)
    assert found[0] == status
    assert found[1].startswith("tinysvc: ")
    assert says in found[1]


def test_target_is_required(tmp_path: Path) -> None:
    status, errors = failed("-m", "tinysvc", "--client", cwd=tmp_path)
    assert status == 2
    assert "name one TARGET to serve, or --new NAME" in errors
