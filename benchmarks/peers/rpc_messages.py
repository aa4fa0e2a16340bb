"""The classes that protoc makes of tinysvc_rpc.proto: for the plain server, and for the load."""

from __future__ import annotations

import importlib
import sys
import tempfile
from pathlib import Path
from typing import Any

import grpc_tools
from grpc_tools import protoc


def generated() -> tuple[Any, Any]:
    """The module with the messages, and that with the stubs."""
    here, folder = Path(__file__).parent, tempfile.mkdtemp(prefix="bench-rpc-")
    includes = Path(grpc_tools.__file__).parent / "_proto"
    outputs = [f"--{name}={folder}" for name in ("python_out", "grpc_python_out")]
    if protoc.main(["protoc", f"-I{here}", f"-I{includes}", *outputs, "tinysvc_rpc.proto"]):
        raise SystemExit("protoc refuses tinysvc_rpc.proto")
    sys.path.insert(0, folder)
    return importlib.import_module("tinysvc_rpc_pb2"), importlib.import_module("tinysvc_rpc_pb2_grpc")
