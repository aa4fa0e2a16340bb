"""Fuzz the HTTP engine, guided by coverage (Atheris): `make fuzz`, or `python tests/fuzz/fuzz_http.py --seconds 60`.

Other flags go to libFuzzer (`-help=1` lists them). The corpus starts with tests/wire/cases and grows in a directory
outside of the project. Inputs that fail are stored in tests/fuzz/found; tests/wire/test_fuzz.py replays them.
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
FOUND = HERE / "found"


def main() -> None:
    parser = argparse.ArgumentParser(description="Fuzz the HTTP engine.")
    parser.add_argument("--seconds", type=int, default=60, help="seconds to run, unless an input fails")
    parser.add_argument("--corpus", type=Path, default=Path(tempfile.gettempdir()) / "tinysvc-fuzz-corpus")
    parser.add_argument("files", nargs="*", type=Path, help="inputs to replay once, in place of new ones")
    options, flags = parser.parse_known_args()
    atheris: Any = importlib.import_module("atheris")  # optional, and without type hints
    sys.path[:0] = [str(HERE.parent), str(HERE.parent / "support")]
    with atheris.instrument_imports(
        include=["tinysvc.http", "tinysvc.wire.heads", "tinysvc.wire.bodies", "tinysvc.wire.chunked"]
    ):
        target: Any = importlib.import_module("fuzz.target")
    words = write_corpus(options.corpus, target)
    usual = [f"-max_total_time={options.seconds}", "-max_len=1500", "-timeout=10", "-rss_limit_mb=1024"]
    usual += [f"-artifact_prefix={FOUND}/", f"-dict={words}"]
    places = [*map(str, options.files or [options.corpus / "grown"])]
    atheris.Setup([sys.argv[0], *usual, *flags, *places], target.check)
    gc.freeze()  # the target collects garbage after each run: a small heap makes that fast
    gc.disable()
    atheris.Fuzz()


def write_corpus(place: Path, target: Any) -> Path:
    """Write the wire cases, and libFuzzer's dictionary, whose path is returned."""
    wire, corpus, words = importlib.import_module("wire_cases"), place / "grown", place / "words"
    corpus.mkdir(parents=True, exist_ok=True)
    for number, case in enumerate(wire.CASES):
        for data in target.seeds(case.sent, number):
            (corpus / hashlib.sha1(data).hexdigest()).write_bytes(data)
    words.write_text("".join(map(word, wire.FRAGMENTS)))
    return words


def word(fragment: bytes) -> str:
    """A line of libFuzzer's dictionary."""
    return '"' + "".join(f"\\x{byte:02x}" for byte in fragment) + '"\n'


if __name__ == "__main__":
    main()
