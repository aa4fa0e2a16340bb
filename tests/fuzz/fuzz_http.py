"""Fuzz HTTP, guided by coverage (Atheris): `make fuzz`, or `python tests/fuzz/fuzz_http.py server --seconds 60`.

The targets: `server` and `client` are the two sides of HTTP/1.1 without I/O; `shell` is the whole connection. Other
flags go to libFuzzer (`-help=1` lists them). The corpus starts with tests/wire/cases and grows outside of the project.
Inputs that fail are stored in tests/fuzz/found; tests/wire/test_fuzz.py and test_fuzz_core.py replay them.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import importlib
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
WIRE = ["tinysvc.wire.connection", "tinysvc.wire.heads", "tinysvc.wire.chunked"]
TARGETS = {
    "server": ("fuzz.server_target", WIRE),
    "client": ("fuzz.client_target", [*WIRE, "tinysvc.wire.client_connection"]),
    "shell": ("fuzz.target", [*WIRE, "tinysvc.http", "tinysvc.wire.bodies", "tinysvc.wire.inbox"]),
}
"""The module of each target, and the modules whose coverage guides the fuzzer."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("files", nargs="*", type=Path, help="inputs to replay once, in place of new ones")
    parser.add_argument("--seconds", type=int, default=60, help="seconds to run, unless an input fails")
    parser.add_argument("--corpus", type=Path, default=Path(tempfile.gettempdir()) / "tinysvc-fuzz-corpus")
    options, flags = parser.parse_known_args()
    atheris: Any = importlib.import_module("atheris")  # optional, and without type hints
    sys.path[:0] = [str(HERE.parent), str(HERE.parent / "support")]
    name, instrumented = TARGETS[options.target]
    with atheris.instrument_imports(include=instrumented):
        target: Any = importlib.import_module(name)
    found, corpus = HERE / "found" / options.target, options.corpus / options.target
    found.mkdir(exist_ok=True)
    words = write_corpus(corpus, target, of_client=options.target == "client")
    usual = [f"-max_total_time={options.seconds}", "-max_len=1500", "-timeout=10", "-rss_limit_mb=1024"]
    usual += [f"-artifact_prefix={found}/", f"-dict={words}"]
    places = [*map(str, options.files or [corpus / "grown"])]
    atheris.Setup([sys.argv[0], *usual, *flags, *places], target.check)
    gc.freeze()  # a target collects garbage after each run: a small heap makes that fast
    gc.disable()
    atheris.Fuzz()


def write_corpus(place: Path, target: Any, *, of_client: bool) -> Path:
    """Write the cases, and libFuzzer's dictionary, whose path is returned."""
    wire, responses = importlib.import_module("wire_cases"), importlib.import_module("response_cases")
    corpus, words = place / "grown", place / "words"
    corpus.mkdir(parents=True, exist_ok=True)
    cases = responses.ALL if of_client else [case.sent for case in wire.CASES]
    for number, sent in enumerate(cases):
        for data in target.seeds(sent, number):
            (corpus / hashlib.sha1(data).hexdigest()).write_bytes(data)
    words.write_text("".join(map(word, [*wire.FRAGMENTS, *responses.FRAGMENTS])))
    return words


def word(fragment: bytes) -> str:
    """A line of libFuzzer's dictionary."""
    return '"' + "".join(f"\\x{byte:02x}" for byte in fragment) + '"\n'


if __name__ == "__main__":
    main()
