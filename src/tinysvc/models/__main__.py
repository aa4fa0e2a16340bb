"""The command line of the model store: `python -m tinysvc.models COMMAND`.

0  done
1  not done: the store has no such version or alias, an alias has moved, or a version is damaged
2  wrong usage
3  the store cannot be used: it is away, read-only, or ignores create-if-absent
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from ..core.errors import ConfigurationError
from ..core.os_errors import describe_os_error
from ..core.printing import print_lines, printable
from ..core.settings import load_settings
from . import command_changes, command_reads
from .command_parser import options_of
from .errors import ModelsError, StoreMissing, StoreReadOnly, StoreRefused, StoreUnavailable
from .object_urls import is_object_url
from .opening import open_store
from .store import ModelStore

Command = Callable[[ModelStore, Mapping[str, Any]], Iterator[str]]

_READS: dict[str, Command] = {
    "list": lambda store, options: (
        command_reads.list_versions(store, options["name"], as_json=options["json"])
        if options["name"]
        else command_reads.list_artifacts(store, as_json=options["json"])
    ),
    "show": lambda store, options: command_reads.show(store, options["reference"], as_json=options["json"]),
    "verify": lambda store, options: command_reads.verify(store, options["references"], as_json=options["json"]),
}
_CHANGES: dict[str, Command] = {
    "publish": command_changes.publish,
    "import": command_changes.import_model,
    "alias": command_changes.alias,
    "rollback": command_changes.rollback,
    "gc": command_changes.gc,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Carry out a command. SystemExit with the status, unless all is done."""
    options = options_of(arguments)
    try:
        print_lines(_lines(options))
    except command_reads.Damaged:
        sys.exit(1)
    except (StoreUnavailable, StoreReadOnly, StoreRefused) as error:
        _fail(3, f"{error}{_remedy(error, options)}")
    except ConfigurationError as error:
        _fail(2, str(error))
    except ModelsError as error:
        _fail(1, str(error))
    except OSError as error:
        _fail(3, describe_os_error(f"{options['command']} {error.filename or ''}".strip(), error))
    except KeyboardInterrupt:
        sys.exit(130)


def _lines(options: dict[str, Any]) -> Iterator[str]:
    given = {name: options.get(name) for name in ("models", "models_keys", "models_signing_key")}
    settings = load_settings(given, os.environ)
    store = open_store(settings.models, keys=settings.models_keys.split(), signing_key=settings.models_signing_key)
    if change := _CHANGES.get(options["command"]):
        if is_object_url(settings.models):
            store.probe()  # before two publishers can overwrite each other
        return change(store, options)
    return _READS[options["command"]](store, options)


def _remedy(error: ModelsError, options: Mapping[str, Any]) -> str:
    if isinstance(error, StoreMissing) and options.get("models") is None:
        return "; name the store with --models or TINYSVC_MODELS"
    return ""


def _fail(status: int, message: str) -> None:
    print(f"tinysvc: {printable(message)}", file=sys.stderr)
    sys.exit(status)


if __name__ == "__main__":
    main(sys.argv[1:])
