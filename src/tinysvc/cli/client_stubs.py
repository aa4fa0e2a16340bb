"""`--client TARGET_OR_URL`: print a module with a typed function for each operation of a service.

The module is made from the OpenAPI document alone, in its order: the same document gives the same text. Lines are
broken as `ruff format` breaks them, at 88 characters, with a trailing comma that keeps them broken at another length.

The document may come from a stranger, and the module is run. So each text of the document becomes an identifier, a
literal (client_stubs_names.py), a part of a docstring (`docstring`) or of a comment (`_one_line`), and cannot leave it.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ..server.loading import TargetError
from ..service.service import Service
from .client_stubs_document import document_at, document_in_file, document_of_service, is_url
from .client_stubs_names import RESERVED, SERVICE, Names, literal
from .client_stubs_operations import Function, Operations, arguments
from .client_stubs_types import Field, StructClass, Types

WIDTH = 88
"""Characters of a line: the default of ruff and black."""

IMPORTS = (
    ("import datetime", "datetime"),
    ("import decimal", "decimal"),
    ("import uuid", "uuid"),
    ("from collections.abc import", "AsyncGenerator Mapping Sequence"),
    ("from typing import", "Any Literal TypeAlias"),
    ("", ""),
    ("import msgspec", "msgspec"),
    ("from tinysvc import", "Event Remote UploadFile"),
)
"""Imports of the module, each with the names that need it."""

_TEXTS = re.compile(r'"""(?:[^"\\]|\\.|"(?!""))*"""|"(?:[^"\\\n]|\\.)*"|\'(?:[^\'\\\n]|\\.)*\'')


def client_module(target: str, load: Callable[[], Service], options: Mapping[str, Any]) -> str:
    """The text of the module for a service that `load` loads, for a URL, or for a JSON file with a document.

    Args:
        target: What the command line names.
        load: Loads the service that `target` names, if it is none of the others.
        options: Options of the command line; they override variables.

    Raises:
        ConfigurationError: The target cannot be loaded or reached, or has no valid OpenAPI 3.1 document.
    """
    url, source = "", target
    if is_url(target):
        document, url = document_at(target, options)
        source = f"the OpenAPI document of {url}"
    elif target.endswith(".json"):
        document = document_in_file(target)
    else:
        document = document_of_service(load, options)
    command = f"python -m tinysvc --client {shlex.quote(target)}"
    try:
        return module_of(document, source, url, command)
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:  # a part has another type
        raise TargetError(f"{target} is no valid OpenAPI document: {type(error).__name__}: {error}") from error


def module_of(document: Mapping[str, Any], source: str, url: str, command: str) -> str:
    """The text of the module.

    Args:
        document: An OpenAPI 3.1 document.
        source: Where the document comes from, for the docstring.
        url: Address of the service; "" if only the setting `services` knows it.
        command: The command that makes the module again.

    Raises:
        TargetError: The document refers to a part that it does not have.
    """
    names = Names(RESERVED)
    types = Types(document, names)
    operations = Operations(document, types, names)
    functions = list(operations.functions())
    structs = [_struct(each) for each in types.structs]
    aliases = "\n".join(_alias(name, text) for name, text in types.aliases.items())
    parts = list(filter(None, [_service(document, url), *structs, aliases, *map(_function, functions)]))
    head = [_module_docstring(document, source, command), "from __future__ import annotations", _imports(parts)]
    left_out = [f"# {_one_line(route)} has no function: {why}." for route, why in operations.left_out.items()]
    parts += ["\n".join(left_out)] if left_out else []
    return "\n\n".join(head) + "\n\n" + "\n\n\n".join(parts) + "\n"


def _module_docstring(document: Mapping[str, Any], source: str, command: str) -> str:
    info = document.get("info", {})
    about = f"Functions that call {info.get('title', 'a service')}, version {info.get('version', '0')}."
    return docstring(f"{about}\n\nMade from {source}. To make it again:\n\n    {command}", "")


def _imports(parts: Iterable[str]) -> str:
    words = {word for each in parts for word in re.findall(r"(?<![\w.])\w+", _TEXTS.sub("", each))}
    lines: list[str] = []
    for statement, names in IMPORTS:
        used = [name for name in names.split() if name in words]
        if used or (not statement and lines):
            lines.append(f"{statement} {', '.join(used)}" if statement.startswith("from") else statement)
    return "\n".join(lines)


def _service(document: Mapping[str, Any], url: str) -> str:
    title = re.sub(r"[^A-Za-z0-9_.-]+", "-", document.get("info", {}).get("title", "")).strip("-") or "service"
    return f"{SERVICE} = " + call("Remote", [literal(title), *([literal(url)] if url else [])], len(SERVICE) + 3, "")


def _struct(each: StructClass) -> str:
    bases = ["msgspec.Struct", "kw_only=True"]
    if each.tag:
        bases += [f"tag_field={literal(each.tag[0])}", f"tag={literal(each.tag[1])}"]
    lines = [call(f"class {each.name}", bases, 1, "") + ":"]
    notes = [f"{field.name}: {_one_line(field.description)}" for field in each.fields if field.description]
    text = each.description.strip() or (f"{each.name}." if notes else "")
    if text:
        text = "\n\n".join(filter(None, [text, _section("Attributes", notes)]))
        lines += [docstring(text, "    "), *([""] if each.fields else [])]
    lines += [f"    {_field(field)}" for field in each.fields]
    return "\n".join(lines if len(lines) > 1 else [*lines, "    pass"])


def _field(field: Field) -> str:
    default = field.default
    if field.name != field.wire_name:
        value = _FACTORIES.get(default, f"default={default}") if default is not None else ""
        default = f"msgspec.field({', '.join(filter(None, [value, f'name={literal(field.wire_name)}']))})"
    return f"{field.name}: {field.kind.text}" + ("" if default is None else f" = {default}")


_FACTORIES = {"[]": "default_factory=list", "{}": "default_factory=dict"}


def _alias(name: str, text: str) -> str:
    line = f"{name}: TypeAlias = {text}"
    if len(line) <= WIDTH or not text.endswith("]"):
        return line
    kind, _, inside = text.partition("[")
    if kind != "Literal":
        return line
    values = [f"    {each}," for each in _split(inside[:-1])]
    return "\n".join([f"{name}: TypeAlias = {kind}[", *values, "]"])


def _split(text: str) -> list[str]:
    """The literals in a text such as `"a, b", 2`."""
    return re.findall(r"(?:\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'|[^,\s])+", text)


def _function(each: Function) -> str:
    signature = [
        f"{one.name}: {one.annotation}" + ("" if one.default is None else f" = {one.default}")
        for one in each.parameters
    ]
    result = f"AsyncGenerator[{each.result.text}, None]" if each.is_stream else each.result.text
    word = "def" if each.is_stream else "async def"
    head = call(f"{word} {each.name}", ["*", *signature] if signature else [], len(f" -> {result}:"), "")
    lines = [f"{head} -> {result}:"]
    lines.append(docstring(_about(each), "    "))
    values = [literal(each.method), literal(each.path), each.result.text]
    values += [_argument(name, code) for name, code in arguments(each)]
    return "\n".join([*lines, *_body(each, values)])


def _body(each: Function, values: list[str]) -> list[str]:
    if each.is_stream:
        return [f"    return {call(f'{SERVICE}.stream', values, 11, '    ')}"]
    if each.result.text == "None":
        return [f"    await {call(f'{SERVICE}.call', values, 10, '    ')}"]
    before = f"    found: {each.result.text} = await "
    return [before + call(f"{SERVICE}.call", values, len(before), "    "), "    return found"]


def _argument(name: str, code: str | list[str]) -> str:
    """An argument of an argument list that may be broken; a dict is broken itself if its line is too long."""
    if isinstance(code, str):
        return f"{name}={code}"
    line = f"{name}={{{', '.join(code)}}}"
    if len(line) + 9 <= WIDTH:
        return line
    return "\n".join([f"{name}={{", *(f"            {each}," for each in code), "        }"])


def call(name: str, values: list[str], around: int, indent: str) -> str:
    """A call or a signature: in one line if that fits with `around` more characters, else a line for each value."""
    line = f"{name}({', '.join(values)})"
    if len(line) + around <= WIDTH and "\n" not in line:
        return line
    return "\n".join([f"{name}(", *(f"{indent}    {each}," for each in values), f"{indent})"])


def _about(each: Function) -> str:
    notes = [f"{one.name}: {_one_line(one.description)}" for one in each.parameters if one.description]
    errors = [f"HTTPError: {status}. {_one_line(text)}".rstrip() for status, text in each.raises]
    summary = each.summary or f"Send {each.method} {each.path}."
    parts = [summary, each.description, "Deprecated." if each.is_deprecated else ""]
    return "\n\n".join(filter(None, [*parts, _section("Args", notes), _section("Raises", errors)]))


def _section(title: str, lines: list[str]) -> str:
    return "\n".join([f"{title}:", *(f"    {each}" for each in lines)]) if lines else ""


def _one_line(text: str) -> str:
    return _printable(" ".join(text.split()))


def _printable(text: str) -> str:
    """The text without control characters and halves of surrogate pairs."""
    return "".join(each for each in text if each == "\n" or each.isprintable())


def docstring(text: str, indent: str) -> str:
    """A text as a docstring. Control characters are left out."""
    text = _printable(re.sub(r"[^\S\n ]", " ", text.expandtabs(4)))
    text, quote = (text.strip()[:-1], '\\"') if text.strip().endswith('"') else (text.strip(), "")
    text = text.replace("\\", "\\\\").replace('"""', '\\"\\"\\"') + quote
    first, *more = [line.rstrip() for line in text.split("\n")]
    if more:
        return "\n".join([f'{indent}"""{first}', *(f"{indent}{line}".rstrip() for line in more), f'{indent}"""'])
    return f'{indent}"""{first}"""'
