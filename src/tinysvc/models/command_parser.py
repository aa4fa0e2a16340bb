"""The words of the command `python -m tinysvc.models`."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from typing import Any, NoReturn

from .. import __version__
from ..core.setting_values import did_you_mean
from .errors import BadReference
from .references import VERSION, check_alias, check_name, parse_reference

_EXAMPLES = """\
examples:
  python -m tinysvc.models list                            all artifacts of the folder ./models
  python -m tinysvc.models list churn                      the versions of one, the newest first
  python -m tinysvc.models show churn@production           its files and what is known about it
  python -m tinysvc.models publish churn ./out --alias staging --meta auc=0.91
  python -m tinysvc.models alias churn production staging  production names the version that staging names
  python -m tinysvc.models alias churn production 8 --if 7 only if it names version 7 now
  python -m tinysvc.models rollback churn production       back to the version before
  python -m tinysvc.models verify                          read all versions, and compare their hashes
  python -m tinysvc.models gc --keep 5                     remove old versions that no alias names
  python -m tinysvc.models import mlflow:models:/churn@champion churn
  python -m tinysvc.models import hf:org/model@main tiny --only '*.safetensors' --only '*.json'

The store is a folder, or s3://bucket/prefix, gs://bucket/prefix or az://container/prefix: --models, or TINYSVC_MODELS.
exit status: 0 done; 1 not done: no such version, a moved alias, a damaged version; 2 wrong usage; 3 no usable store
"""


class Parser(argparse.ArgumentParser):
    """Suggests a command for a word that is none."""

    def error(self, message: str) -> NoReturn:
        if found := re.search(r"argument COMMAND: invalid choice: '([^']*)'", message):
            message = f"{found[1]} is no command{did_you_mean(found[1], COMMANDS)}"
        super().error(message)


COMMANDS = {
    "list": "the artifacts of the store, or the versions of one",
    "show": "a version with its files, or an alias with its moves",
    "publish": "a file or a folder as a new version",
    "alias": "let an alias name a version",
    "rollback": "let an alias name the version that it named before",
    "verify": "read versions, and compare their files with their hashes",
    "gc": "remove old versions that no alias names, and what killed publishers have left",
    "import": "publish a model of MLflow or of the Hugging Face hub",
}
"""The commands, and what each one does."""

_WORDS = {
    "list": "[NAME]",
    "show": "NAME[@VERSION|@ALIAS]",
    "publish": "NAME PATH",
    "alias": "NAME ALIAS VERSION",
    "rollback": "NAME ALIAS",
    "verify": "[NAME[@VERSION|@ALIAS] ...]",
    "gc": "",
    "import": "SOURCE NAME",
}


def parser() -> argparse.ArgumentParser:
    """The parser. The options that all commands have may stand before and after the command."""
    command = Parser(
        prog="tinysvc.models",
        usage="python -m tinysvc.models COMMAND [ARGUMENT ...] [OPTION ...]",
        allow_abbrev=False,  # a new option would change what an abbreviation means
        description="Publish versions of models and other artifacts, and say which one is served.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("--version", action="version", version=f"tinysvc {__version__}")
    _add_common(command, None)
    commands = command.add_subparsers(
        dest="command", metavar="COMMAND", required=True, parser_class=Parser, prog="tinysvc.models"
    )
    for name, about in COMMANDS.items():
        usage = " ".join(filter(None, ("python -m tinysvc.models", name, _WORDS[name], "[OPTION ...]")))
        each = commands.add_parser(name, help=about, description=about, usage=usage, allow_abbrev=False)
        _add_common(each, argparse.SUPPRESS)
        _ARGUMENTS[name](each)
    return command


def _add_common(command: argparse.ArgumentParser, default: Any) -> None:
    command.add_argument(
        "--models", metavar="STORE", default=default, help="the store: a folder or a URL (default: 'models')"
    )
    command.add_argument(
        "--models-keys",
        metavar="FILES",
        default=default,
        help="trusted public keys; a version that none of them has signed is refused",
    )
    command.add_argument(
        "--json",
        action="store_true",
        default=False if default is None else default,
        help="print JSON, one document a line, instead of tables",
    )


def _list(command: argparse.ArgumentParser) -> None:
    command.add_argument("name", metavar="NAME", nargs="?", type=_name, help="the artifact; without it: all")


def _show(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "reference", metavar="NAME[@VERSION|@ALIAS]", type=_reference, help="without a version: the newest one"
    )


def _publish(command: argparse.ArgumentParser) -> None:
    command.add_argument("name", metavar="NAME", type=_name, help="the artifact; a new one is created")
    command.add_argument("path", metavar="PATH", help="a file, or a folder whose files are published")
    _add_publication(command)


def _alias(command: argparse.ArgumentParser) -> None:
    command.add_argument("name", metavar="NAME", type=_name, help="the artifact")
    command.add_argument("alias", metavar="ALIAS", type=_alias_text, help="the alias; a new one is created")
    command.add_argument(
        "version", metavar="VERSION", type=_version, help="a number, or another alias, whose version it is"
    )
    _add_condition(command)


def _rollback(command: argparse.ArgumentParser) -> None:
    command.add_argument("name", metavar="NAME", type=_name, help="the artifact")
    command.add_argument("alias", metavar="ALIAS", type=_alias_text, help="the alias")
    _add_condition(command)


def _verify(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "references",
        metavar="NAME[@VERSION|@ALIAS]",
        nargs="*",
        type=_reference,
        help="without a version: all of them; without a name: all artifacts",
    )


def _gc(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--keep", type=_count, default=10, metavar="N", help="newest versions of each artifact that stay (default: 10)"
    )
    command.add_argument(
        "--older-than",
        type=_seconds,
        default=86_400.0,
        metavar="SECONDS",
        help="time for which things stay aside before they are removed (default: 86400, a day)",
    )
    command.add_argument("--dry-run", action="store_true", help="print what would be removed, and remove nothing")


def _import(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "source",
        metavar="SOURCE",
        help="mlflow:models:/NAME/VERSION, mlflow:models:/NAME@ALIAS, mlflow:runs:/RUN/PATH, or "
        "hf:ORGANIZATION/MODEL[@REVISION]",
    )
    command.add_argument("name", metavar="NAME", type=_name, help="the artifact; a new one is created")
    command.add_argument(
        "--tracking",
        metavar="URI",
        default="",
        help="MLflow's tracking store (default: MLFLOW_TRACKING_URI, ./mlflow.db or ./mlruns)",
    )
    command.add_argument(
        "--only", metavar="PATTERN", action="append", default=[], help="import these files only, as in '*.safetensors'"
    )
    _add_publication(command)


_ARGUMENTS = {
    "list": _list,
    "show": _show,
    "publish": _publish,
    "alias": _alias,
    "rollback": _rollback,
    "verify": _verify,
    "gc": _gc,
    "import": _import,
}


def _add_publication(command: argparse.ArgumentParser) -> None:
    command.add_argument("--alias", metavar="ALIAS", type=_alias_text, help="let it name the new version")
    command.add_argument(
        "--meta",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        type=_meta,
        help="what is worth to know, as in auc=0.91; a value is JSON, else a text",
    )
    command.add_argument(
        "--models-signing-key", metavar="FILE", default=None, help="the private key (ed25519) that signs the version"
    )
    _add_author(command)


def _add_condition(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--if",
        dest="expected",
        metavar="VERSION",
        type=_expected,
        help="only if the alias names this version now; 0: only if it does not exist",
    )
    _add_author(command)


def _add_author(command: argparse.ArgumentParser) -> None:
    command.add_argument("--by", metavar="TEXT", default="", help="the person or process (default: user and host)")


# Values


def _checked(check: Any, text: str) -> Any:
    try:
        return check(text)
    except BadReference as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _name(text: str) -> str:
    if "@" in text:
        raise argparse.ArgumentTypeError(f"the name of an artifact is expected, without a version, not {text!r}")
    return _checked(check_name, text)  # type: ignore[no-any-return]


def _alias_text(text: str) -> str:
    return _checked(check_alias, text)  # type: ignore[no-any-return]


def _reference(text: str) -> str:
    _checked(parse_reference if "@" in text else check_name, text)
    return text


def _version(text: str) -> str:
    if not VERSION.fullmatch(text):
        _checked(check_alias, text)
    return text


def _expected(text: str) -> int:
    if not VERSION.fullmatch(text) and text != "0":
        raise argparse.ArgumentTypeError(f"the number of a version is expected, as in 7, or 0, not {text!r}")
    return int(text)


def _count(text: str) -> int:
    if not VERSION.fullmatch(text):
        raise argparse.ArgumentTypeError(f"a whole number from 1 is expected, not {text!r}")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not seconds >= 0:
        raise argparse.ArgumentTypeError(f"seconds are expected, as in 3600, not {text!r}")
    return seconds


def _meta(text: str) -> tuple[str, Any]:
    import msgspec

    key, equals, value = text.partition("=")
    if not equals or not key:
        raise argparse.ArgumentTypeError(f"KEY=VALUE is expected, as in auc=0.91, not {text!r}")
    try:
        return key, msgspec.json.decode(value.encode())
    except msgspec.DecodeError:
        return key, value


def options_of(arguments: Sequence[str] | None) -> dict[str, Any]:
    """The arguments by their names. SystemExit(2) for wrong ones."""
    return vars(parser().parse_args(arguments))
