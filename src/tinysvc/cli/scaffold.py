"""`--new NAME`: write a small, complete service to a new folder, with tests, a Makefile, a Dockerfile, a
compose file and manifests for Kubernetes.

Its files are those of `template/`, with the name in place of `myservice`, and in place of `dns-name` with the name that
images and Kubernetes may have.
"""

from __future__ import annotations

import importlib.util
import json
import keyword
import os
import re
import shutil
from importlib import metadata
from pathlib import Path

from .. import __version__
from ..core.errors import ConfigurationError

TEMPLATE = Path(__file__).parent / "template"
CHECKOUT = Path(__file__).parents[3]

HIDDEN = ("gitignore", "dockerignore")
"""Files that get a dot before their name in the new service."""

NEXT = """\
wrote {folder}: {files}

    cd {folder}
    make test     sets up .venv and runs the tests
    make run      serves it on http://127.0.0.1:8000; /docs is a page to try it
"""

NOT_ON_AN_INDEX = """
requirements.txt names the installed tinysvc, {requirement}.
Replace it by a version of a package index before you build the image.
"""


def create(name: str) -> str:
    """Write a new service to the folder `name`, and return the text to print. ConfigurationError if that fails."""
    folder = Path(name)
    module = _module_name(folder.name or name)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigurationError(f"{folder} exists, and is not an empty folder; choose another name, or remove it")
    draft = folder.with_name(f".{folder.name}.{os.getpid()}")
    requirement = _requirement()
    try:
        draft.mkdir(parents=True)
        try:
            _write(draft, module, requirement)
            draft.rename(folder)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    except OSError as error:
        raise ConfigurationError(f"{folder} cannot be written: {error.strerror}") from None
    text = NEXT.format(folder=folder, files=", ".join(sorted(path.name for path in folder.iterdir())))
    return text + (NOT_ON_AN_INDEX.format(requirement=requirement) if " @ " in requirement else "")


def _module_name(name: str) -> str:
    """The name of the module. ConfigurationError if it is taken or cannot be imported."""
    module = name.replace("-", "_")
    if not module.isidentifier() or not module.isascii():
        hint = re.sub(r"\W+", "_", module, flags=re.ASCII).strip("_").lstrip("0123456789_") or "service"
        raise ConfigurationError(f"a service is a Python module, which cannot be called {name!r}; use {hint!r}")
    if keyword.iskeyword(module):
        why = "a keyword of Python"
    elif found := importlib.util.find_spec(module):
        if found.origin is None:  # a folder, which `create` checks
            return module
        why = f"taken by {found.origin if found.has_location else 'a module of Python'}"
    else:
        return module
    raise ConfigurationError(f"the name {module} is {why}; use another one, such as '{name}-service'")


def _write(folder: Path, module: str, requirement: str) -> None:
    dns_name = module.replace("_", "-").lower().strip("-") or "service"
    for path in TEMPLATE.iterdir():
        if path.is_file():
            name = f".{path.name}" if path.name in HIDDEN else path.name.replace("myservice", module)
            text = path.read_text("utf-8").replace("myservice", module).replace("dns-name", dns_name)
            (folder / name).write_text(text, "utf-8")
    (folder / "requirements.txt").write_text(f"{requirement}\n", "utf-8")


def _requirement() -> str:
    """The requirement with which pip installs the tinysvc that runs now, with metrics."""
    try:
        found = json.loads(metadata.distribution("tinysvc").read_text("direct_url.json") or "{}")
    except metadata.PackageNotFoundError:
        found = {"url": CHECKOUT.as_uri()} if (CHECKOUT / "pyproject.toml").exists() else {}
    if "url" not in found:
        return f"tinysvc[metrics]=={__version__}"
    version_control = found.get("vcs_info")
    if not version_control:
        return f"tinysvc[metrics] @ {found['url']}"
    return f"tinysvc[metrics] @ {version_control['vcs']}+{found['url']}@{version_control['commit_id']}"
