"""The public API: each name is on the reference page, and its docstring fits its signature.

The page `docs/reference.md` decides what is public: `::: tinysvc.web.cookies.set_cookie` is a name and its import path.
All checks read the syntax tree. So they see `raise` statements, and the docstrings of variables.

    Args      names each parameter, and nothing else
    Returns   is there unless the function returns None; Yields for a generator
    Raises    names each error that the function raises, itself or through the functions that it calls
    Example   is there, and its code runs
"""

from __future__ import annotations

import ast
import builtins
import inspect
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import tinysvc
from tinysvc.core import errors
from tinysvc.models import errors as model_errors

SOURCE = Path(tinysvc.__file__).parent
PAGE = (Path(__file__).parents[1] / "docs" / "reference.md").read_text()
ENTRIES = re.findall(r"^::: (\S+)\n((?:    .*\n)*)", PAGE, re.MULTILINE)

HANDED_OUT = frozenset(
    [
        *("Background", "FormData", "Headers", "SocketClosed", "UploadFile", "WebSocket"),
        *("NoRoute", "PoolError", "QueueFull", "DeadlineExceeded", "DeadlineInQueue", "NoWorkers", "PoolClosed"),
        *("BindingError", "JobRefused", "RemoteError", "TinysvcError", "WorkerDied", "WorkerStartError"),
        *("ConfigurationError", "UnencodableResult"),
        *("BudgetExhausted", "CallFailed", "CallRefused", "CallTimeout", "CallUnavailable", "Call"),
        *("ModelsError", "UnknownVersion", "AliasMoved", "PublicationRefused", "VersionRefused", "PickleRefused"),
        *("StoreUnavailable", "StoreReadOnly", "BlocksEventLoop", "Publication", "Manifest", "AliasEntry"),
        *("Accepted", "Submit", "StaleAttempt", "NotSaved", "UnreadableSave"),
    ]
)
"""Classes whose objects tinysvc makes: their docstrings list attributes instead of parameters."""

NOT_RUN = frozenset({"run", "tinysvc_serve", "tinysvc_serve_module"})
"""Examples that serve until a signal, or that pytest calls."""

CONVERTED = {"tinysvc.run": errors.ConfigurationError}
"""Errors that a context manager turns into something else: `run` ends the process with an exit status."""

WITHOUT_EXAMPLE = frozenset(
    [
        *("DeadlineInQueue", "JobRefused", "NoWorkers", "PoolClosed", "UnencodableResult"),
        *("CallRefused", "CallTimeout", "CallUnavailable", "UnreadableSave"),
        *("UnknownVersion", "PublicationRefused", "VersionRefused", "PickleRefused", "BlocksEventLoop"),
        *("StoreUnavailable", "StoreReadOnly", "Publication", "Manifest", "AliasEntry", "ModelsError"),
    ]
)
"""Errors that are caught as the others are: `PoolError`, `HTTPError`, `CallFailed` and `AliasMoved` show it; and what
the methods of `Models` return."""

SECTIONS = ("Args", "Attributes", "Returns", "Yields", "Raises", "Example", "Note")
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Name:
    """A public name, or a public member of a class, with its node in the syntax tree."""

    path: str
    module: str
    node: Any
    doc: str

    def __str__(self) -> str:
        return self.path.removeprefix("tinysvc.")

    @property
    def last(self) -> str:
        return self.path.rpartition(".")[2]

    @property
    def sections(self) -> dict[str, str]:
        """The text of each section by its title; the text before the first one is at ""."""
        parts = re.split(rf"^({'|'.join(SECTIONS)}):$", self.doc, flags=re.MULTILINE)
        return {"": parts[0], **dict(zip(parts[1::2], map(textwrap.dedent, parts[2::2]), strict=True))}

    def entries(self, section: str) -> list[str]:
        """The names at the left margin of a section."""
        return re.findall(r"^(\*{0,2}[\w.]+)(?: \([^)]*\))?:", self.sections.get(section, ""), re.MULTILINE)


@cache
def tree_of(module: str) -> ast.Module:
    file = SOURCE.joinpath(*module.split(".")[1:])
    return ast.parse((file / "__init__.py" if file.is_dir() else file.with_suffix(".py")).read_text())


@cache
def origins() -> dict[str, str]:
    """The module of each name that `tinysvc` imports."""
    imports = [node for node in ast.walk(tree_of("tinysvc")) if isinstance(node, ast.ImportFrom) and node.level]
    return {alias.name: f"tinysvc.{node.module}" for node in imports for alias in node.names}


def documented(node: ast.AST, siblings: list[ast.stmt]) -> str:
    """The docstring of a definition, or the text below a variable."""
    if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
        return ast.get_docstring(node) or ""
    after = siblings[siblings.index(node) + 1]  # type: ignore[arg-type]
    is_text = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
    return inspect.cleandoc(str(after.value.value)) if is_text else ""  # type: ignore[attr-defined]


def found(name: str, body: list[ast.stmt]) -> ast.stmt | None:
    """The last definition of `name`: the ones before it are overloads."""
    last = None
    for node in body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if getattr(node, "name", "") == name or name in [getattr(target, "id", "") for target in targets]:
            last = node
    return last


def public_name(path: str) -> Name:
    module, _, name = path.rpartition(".")
    module = origins()[name] if module == "tinysvc" else module
    body = tree_of(module).body
    node = found(name, body)
    assert node is not None, f"{path} is on the reference page, and not in {module}"
    return Name(path, module, node, documented(node, body))


def class_of(name: str, module: str) -> tuple[ast.ClassDef, str] | None:
    """A class, and its module, as `module` knows it."""
    known = getattr(import_module(module), name, None)
    if not isinstance(known, type) or not known.__module__.startswith("tinysvc."):
        return None
    node = found(known.__name__, tree_of(known.__module__).body)
    return (node, known.__module__) if isinstance(node, ast.ClassDef) else None


def members(owner: Name, options: str) -> Iterator[Name]:
    chosen = re.search(r" members: \[(.*)\]", options)
    inherited = re.search(r"inherited_members: \[(.*)\]", options)
    names = chosen[1].split(", ") if chosen else [getattr(node, "name", "_") for node in owner.node.body]
    for name in sorted({name for name in names if name and not name.startswith("_")}):
        node, module = found(name, owner.node.body), owner.module
        if node is None:
            assert inherited is not None, f"{owner} has no {name}"
            assert name in inherited[1].split(", ")
            bases = [class_of(ast.unparse(base), module) for base in owner.node.bases]
            node, module = next((found(name, base.body), where) for base, where in filter(None, bases))
        assert node is not None, f"{owner} has no {name}"
        yield Name(f"{owner.path}.{name}", module, node, documented(node, owner.node.body))


NAMES = [public_name(path) for path, _ in ENTRIES]
MEMBERS = [
    member
    for name, (_, options) in zip(NAMES, ENTRIES, strict=True)
    if isinstance(name.node, ast.ClassDef)
    for member in members(name, options)
]
FUNCTIONS = [
    name
    for name in [*NAMES, *MEMBERS]
    if isinstance(name.node, (ast.FunctionDef, ast.AsyncFunctionDef))
    and not any(ast.unparse(each).endswith((".setter", "property")) for each in name.node.decorator_list)
]
MADE = [name for name in NAMES if isinstance(name.node, ast.ClassDef) and name.last not in HANDED_OUT]


def parameters(node: Function) -> list[str]:
    given = node.args
    names = [each.arg for each in [*given.posonlyargs, *given.args] if each.arg not in ("self", "cls")]
    names += [f"*{given.vararg.arg}"] if given.vararg else []
    names += [each.arg for each in given.kwonlyargs]
    return names + ([f"**{given.kwarg.arg}"] if given.kwarg else [])


def fields(name: Name) -> list[str]:
    """The parameters of a class: those of `__init__`, else the fields of a dataclass, TypedDict or NamedTuple."""
    init = found("__init__", name.node.body)
    if isinstance(init, ast.FunctionDef):
        return parameters(init)
    if own := [node.target.id for node in name.node.body if isinstance(node, ast.AnnAssign)]:  # type: ignore[union-attr]
        return own
    base = class_of(ast.unparse(name.node.bases[0]), name.module)
    assert base is not None, f"{name} has no parameters"
    return fields(Name(name.path, base[1], base[0], ""))


# Errors that a function raises, from the syntax tree


@dataclass(frozen=True)
class Reader:
    """Finds the errors that are raised in a node, itself or through the helpers that it calls."""

    module: str
    owner: ast.ClassDef | None

    def raised_in(self, function: Function, seen: frozenset[str] = frozenset()) -> set[type]:
        returned = {ast.unparse(each.value) for each in function.body if isinstance(each, ast.Return) and each.value}
        decorators = [each for each in function.body if isinstance(each, ast.FunctionDef) and each.name in returned]
        return set().union(
            *(self.raised(each, seen) for each in function.body), *(self.raised_in(each, seen) for each in decorators)
        )

    def raised(self, node: ast.AST, seen: frozenset[str]) -> set[type]:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            return set()  # it is called later
        if isinstance(node, ast.Try):
            caught = tuple(kind for handler in node.handlers for kind in self.kinds(handler.type))
            inside = set().union(*(self.raised(each, seen) for each in node.body))
            rest = [*node.handlers, *node.orelse, *node.finalbody]
            return {kind for kind in inside if not issubclass(kind, caught)}.union(
                *(self.raised(each, seen) for each in rest)
            )
        own = self.kinds(node.exc) if isinstance(node, ast.Raise) else set()
        return own.union(self.through(node, seen), *(self.raised(each, seen) for each in ast.iter_child_nodes(node)))

    def kinds(self, node: ast.AST | None) -> set[type]:
        """The errors that an expression names: a class, a call of it or of `ConfigurationError.at`, or a helper."""
        if isinstance(node, ast.Tuple):
            return set().union(*(self.kinds(each) for each in node.elts))
        if isinstance(node, ast.Call):
            helper = found(node.func.id, tree_of(self.module).body) if isinstance(node.func, ast.Name) else None
            return self.kinds(helper.returns if isinstance(helper, ast.FunctionDef) else node.func)
        if isinstance(node, ast.Attribute):
            return self.kinds(node.value)
        known = error_named(node.id, self.module) if isinstance(node, ast.Name) else None
        return {known} if known else set()

    def through(self, node: ast.AST, seen: frozenset[str]) -> set[type]:
        """The errors of a helper that the node calls: a function, or a private method of the same class."""
        if not isinstance(node, ast.Call) or ast.unparse(node.func) in seen:
            return set()
        function, reader, helper = node.func, self, None
        if isinstance(function, ast.Name):
            home = getattr(getattr(import_module(self.module), function.id, None), "__module__", "")
            if home.startswith("tinysvc."):
                reader = self if home == self.module else Reader(home, None)
                helper = found(function.id, tree_of(home).body)
        elif isinstance(function, ast.Attribute) and ast.unparse(function).startswith("self._") and self.owner:
            helper = found(function.attr, self.owner.body)
        if not isinstance(helper, (ast.FunctionDef, ast.AsyncFunctionDef)):
            return set()
        return reader.raised_in(helper, seen | {ast.unparse(function)})


def error_named(name: str, module: str) -> type | None:
    for place in (import_module(module), tinysvc, errors, model_errors, builtins):
        kind = getattr(place, name, None)
        if isinstance(kind, type) and issubclass(kind, BaseException):
            return kind
    return None


def raised_by(name: Name) -> set[type]:
    if isinstance(name.node, ast.ClassDef):
        reader = Reader(name.module, name.node)
        makers = [found(each, name.node.body) for each in ("__init__", "__post_init__")]
        return set().union(*(reader.raised_in(each) for each in makers if isinstance(each, Function)))
    owner = next((each.node for each in NAMES if name.path.startswith(f"{each.path}.")), None)
    return Reader(name.module, owner).raised_in(name.node)


# The tests


def test_every_public_name_is_on_the_page() -> None:
    listed = [path for path, _ in ENTRIES]
    assert len(set(listed)) == len(listed)
    assert {path for path in listed if path.count(".") == 1} == {f"tinysvc.{name}" for name in tinysvc.__all__}


@pytest.mark.parametrize("path", [path for path, _ in ENTRIES])
def test_every_import_path_works(path: str) -> None:
    module, _, name = path.rpartition(".")
    assert hasattr(import_module(module), name)


@pytest.mark.parametrize("name", [*NAMES, *MEMBERS], ids=str)
def test_docstring_begins_with_a_sentence(name: Name) -> None:
    first = name.doc.partition("\n\n")[0].strip()
    assert first.endswith((".", ":")), f"{name}: {first!r}"


@pytest.mark.parametrize("name", [*FUNCTIONS, *MADE], ids=str)
def test_args_are_the_parameters(name: Name) -> None:
    expected = fields(name) if isinstance(name.node, ast.ClassDef) else parameters(name.node)
    assert name.entries("Args" if "Attributes" not in name.sections else "Attributes") == expected


@pytest.mark.parametrize("name", [name for name in NAMES if name.last in HANDED_OUT], ids=str)
def test_attributes_exist(name: Name) -> None:
    made: type = getattr(import_module(name.module), name.last)
    source = "".join(inspect.getsource(each) for each in made.__mro__ if each.__module__.startswith("tinysvc."))
    source = re.sub('""".*?"""', "", source, flags=re.DOTALL)
    missing = [
        each
        for each in name.entries("Attributes")
        if not re.search(rf"^ +(self\.|def )?{each}\b", source, re.MULTILINE)
    ]
    assert missing == []
    assert "Args" not in name.sections


@pytest.mark.parametrize("name", FUNCTIONS, ids=str)
def test_result_is_described(name: Name) -> None:
    annotation = ast.unparse(name.node.returns)
    yields = annotation.startswith(("Iterator", "AsyncIterator", "AsyncGenerator"))
    assert ("Yields" in name.sections) == yields
    assert ("Returns" in name.sections) == (not yields and annotation != "None")


@pytest.mark.parametrize("name", [*FUNCTIONS, *MADE], ids=str)
def test_raised_errors_are_named(name: Name) -> None:
    named = {error: error_named(error.rpartition(".")[2], name.module) for error in name.entries("Raises")}
    assert None not in named.values(), named
    known = (*filter(None, named.values()), *([CONVERTED[name.path]] if name.path in CONVERTED else []))
    missing = [kind for kind in raised_by(name) if not issubclass(kind, known)]
    assert missing == []


@pytest.mark.parametrize("name", [name for name in NAMES if name.last not in WITHOUT_EXAMPLE], ids=str)
def test_example_runs(name: Name, tmp_path: Path) -> None:
    code = "\n".join(re.findall(r"^```python\n(.*?)^```$", name.sections.get("Example", ""), re.MULTILINE | re.DOTALL))
    assert code, f"{name} has no example"
    compiled = compile(code, f"<example of {name}>", "exec", dont_inherit=True)
    if name.last in NOT_RUN:
        return
    if "__main__" in code:  # it has worker processes
        (tmp_path / "example.py").write_text(code)
        unmeasured = {key: value for key, value in os.environ.items() if not key.startswith("COVERAGE_")}
        subprocess.run([sys.executable, "example.py"], cwd=tmp_path, check=True, timeout=50, env=unmeasured)
    else:
        exec(compiled, {"__name__": "example"})


def test_names_that_have_moved_are_still_found_at_the_top_level() -> None:
    for name, module in tinysvc._MOVED.items():
        assert getattr(tinysvc, name) is getattr(import_module(f"tinysvc.{module}"), name)
        assert name not in tinysvc.__all__
