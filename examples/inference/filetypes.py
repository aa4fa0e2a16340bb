"""Tell the type of a file from its content, with the model of magika: 214 types, 3 MB of ONNX. Publish it with:

    pip install 'tinysvc[onnx]' magika
    python examples/inference/filetypes.py models

and ask:

    curl --data-binary @README.md http://127.0.0.1:8000/inference/filetypes

The answers to requests that come together are computed together (`batch`).
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tinysvc import Artifact, Batch, HTTPError, Models, cpu_resource, cpu_route

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

REFERENCE = "filetypes@production"

MISSING = "" if find_spec("onnxruntime") else "This needs onnxruntime: pip install 'tinysvc[onnx]'"


class Detector:
    """An ONNX session with the settings of its model. It has threads, so each worker opens its own."""

    def __init__(self, folder: Path) -> None:
        import onnxruntime  # its import starts a thread, which the fork of a worker would not copy

        settings = json.loads((folder / "config.min.json").read_text())
        self.labels: list[str] = settings["target_labels_space"]
        self.begin, self.end = settings["beg_size"], settings["end_size"]
        self.block, self.padding = settings["block_size"], settings["padding_token"]
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # one core for each worker
        self.session = onnxruntime.InferenceSession(folder / "model.onnx", options)

    def input_of(self, content: bytes) -> NDArray[numpy.int32]:
        """The model looks at the first and the last bytes, without the white space around them."""
        import numpy

        values = numpy.full(self.begin + self.end, self.padding, numpy.int32)
        first, last = content[: self.block].lstrip(), content[-self.block :].rstrip()
        if len(content) <= self.block:
            first = last = content.strip()
        first, last = first[: self.begin], last[-self.end :]
        values[: len(first)] = list(first)
        values[len(values) - len(last) :] = list(last)
        return values

    def scores(self, contents: list[bytes]) -> NDArray[numpy.float32]:
        """The probability of each type, content by content."""
        import numpy

        (found,) = self.session.run(None, {"bytes": numpy.stack([self.input_of(each) for each in contents])})
        return found  # type: ignore[no-any-return]


def is_sane(detector: Detector | None) -> bool:
    """Whether a new version may serve: it knows the type of this file."""
    if detector is None:
        return True
    (scores,) = detector.scores([Path(__file__).read_bytes()])
    return bool(detector.labels[scores.argmax()] == "python")


@cpu_resource(check=is_sane)
def detector(folder: Annotated[Path | None, Artifact(REFERENCE)]) -> Detector | None:
    """Opened in each worker. None before the first version is published."""
    return Detector(folder) if folder and not MISSING else None


@dataclass
class FileType:
    type: str
    probability: float


@cpu_route("/", methods=["POST"], batch=Batch(size=32, wait=0.005), responses={501: "onnxruntime is not installed."})
def filetype(body: list[bytes], detector: Detector | None) -> list[FileType]:
    """The type of a file, from its content. The header X-Artifact names the version that found it."""
    if MISSING:
        raise HTTPError(501, MISSING)
    if detector is None:
        raise HTTPError(503, f"There is no {REFERENCE} yet; publish one: python examples/inference/filetypes.py models")
    found = detector.scores(body)
    return [FileType(detector.labels[row.argmax()], float(row.max())) for row in found]


def publish(store: str) -> int:
    """Publish the model that the package magika contains, as the version in production."""
    import magika

    (folder,) = (Path(magika.__file__).parent / "models").iterdir()
    with Models(store).publish("filetypes", alias="production", meta={"origin": folder.name}) as new:
        for name in ("model.onnx", "config.min.json"):
            (new.path / name).write_bytes((folder / name).read_bytes())
    return new.version


if __name__ == "__main__":
    print(f"published filetypes@{publish(sys.argv[1])}")
