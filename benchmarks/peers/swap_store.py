"""Publish a version of the model in a store of tinysvc, or promote one; print its number, or the instant."""

import json
import shutil
import sys
import time
from pathlib import Path

from tinysvc.models.opening import open_store

url, command, argument = sys.argv[1:]
store = open_store(url)
if command == "publish":
    with store.publish("swap") as new:
        for file in Path(argument).iterdir():
            shutil.copy(file, new.path / file.name)
    print(json.dumps({"version": new.version}))
else:
    store.move_alias("swap", "production", int(argument))
    print(json.dumps({"at": time.monotonic()}))
