"""Clients that generators of others make from the document of the examples: they compile, and call the examples."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from urllib.request import urlopen

import pytest
from PIL import Image

import client_app
from client_tools import FOLDER, ROOT, SEARCHED, tools
from tinysvc.core.settings import Settings
from tinysvc.openapi.page import openapi_json
from tinysvc.server.loading import load_service
from tinysvc.service.plan import plans_of
from tinysvc.testing import serving

PROGRAMS = ROOT / "tests" / "support" / "generated_clients"

RESULTS = {
    "hello": "hello Ada?",
    "primes": [2, 3, 5, 7, 11],
    "blobs": True,
    "chat": True,
    "gallery": True,
    "images": True,
    "live": True,
    "members": "ada",
    "notes": "a title",
    "office": ["pen", 1],
    "text": 6,
    "users": True,
    "vectors": True,
}

OVERRIDES = {"*/*": "application/octet-stream", "application/x-ndjson": "text/plain"}
"""For openapi-python-client: it knows neither of the two."""

pytestmark = pytest.mark.timeout(600)  # a first build compiles Go's standard library


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving(str(ROOT / "examples"), cpu_workers=2, models=str(tmp_path_factory.mktemp("models"))) as url:
        yield url


@pytest.fixture
def document(url: str, tmp_path: Path) -> Path:
    with urlopen(f"{url}/openapi.json") as response:
        (tmp_path / "openapi.json").write_bytes(response.read())
    return tmp_path / "openapi.json"


@pytest.fixture
def image(tmp_path: Path) -> Path:
    content = BytesIO()
    Image.new("RGB", (30, 20), "red").save(content, "PNG")
    (tmp_path / "image.png").write_bytes(content.getvalue())
    return tmp_path / "image.png"


def run(*words: str | Path, cwd: Path, **variables: str) -> str:
    done = subprocess.run(
        list(map(str, words)),
        cwd=cwd,
        env={**os.environ, "PATH": SEARCHED, **variables},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, f"{words[0]} failed:\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


def generate(name: str, document: Path, *options: str) -> Path:
    """The folder with the client that openapi-generator makes."""
    (generator, _) = tools("openapi-generator-cli", "java")
    folder = document.parent / "client"
    output = run(generator, "generate", "-i", document, "-g", name, "-o", folder, *options, cwd=document.parent)
    assert "ERROR" not in output
    return folder


def check(output: str) -> None:
    """Compare what a program prints with what each example responds."""
    found = json.loads(output)
    assert re.fullmatch(r"404 There is no note [0-9]+\.", found.pop("error"))
    assert found == RESULTS


def test_go(url: str, document: Path, image: Path) -> None:
    (go,) = tools("go")
    folder = generate(
        "go", document, "--git-user-id=tinysvc", "--git-repo-id=client", "--additional-properties=packageName=client"
    )
    (folder / "test").rename(document.parent / "test")  # needs a library
    (folder / "examples").mkdir()
    (folder / "examples" / "main.go").write_bytes((PROGRAMS / "main.go").read_bytes())
    cache = {"GOCACHE": str(FOLDER / "go-cache")} if FOLDER.exists() else {}
    variables = {"GOPROXY": "off", "GOFLAGS": "-mod=mod", "GOTOOLCHAIN": "local", **cache}
    run(go, "vet", "./...", cwd=folder, **variables)
    run(go, "build", "-o", "run", "./examples", cwd=folder, **variables)
    check(run(folder / "run", url, image, cwd=folder))


def test_typescript(url: str, document: Path, image: Path) -> None:
    tsc, node = tools("tsc", "node")
    folder = generate("typescript-fetch", document).parent
    (folder / "main.ts").write_bytes((PROGRAMS / "main.ts").read_bytes())
    (folder / "node.d.ts").write_text(NODE_TYPES)
    options = {"strict": True, "target": "es2022", "module": "commonjs", "outDir": "out", "lib": ["es2022", "dom"]}
    settings = {"compilerOptions": {**options, "types": []}, "include": ["*.ts", "client/**/*.ts"]}
    (folder / "tsconfig.json").write_text(json.dumps(settings))
    run(tsc, "-p", ".", cwd=folder)
    check(run(node, folder / "out" / "main.js", url, image, cwd=folder))


NODE_TYPES = """
declare module "node:fs" { export function readFileSync(path: string): Uint8Array<ArrayBuffer>; }
declare const process: { argv: string[] };
"""
"""The part of @types/node that main.ts needs."""


def test_openapi_python_client(url: str, document: Path, image: Path) -> None:
    generator, _ = tools("openapi-python-client", "ruff")
    folder = document.parent / "generated"
    config = document.parent / "config.json"
    config.write_text(json.dumps({"content_type_overrides": OVERRIDES}))
    options = ("--path", document, "--output-path", folder, "--config", config)
    output = run(generator, "generate", *options, cwd=document.parent)
    assert "WARNING" not in output
    run("ruff", "check", "--isolated", "--select=F", folder, cwd=folder)
    (folder / "main.py").write_text(PYTHON)
    check(run(sys.executable, "main.py", url, image, cwd=folder))


PYTHON = """
import json, sys
from io import BytesIO
from examples_client import AuthenticatedClient, Client
from examples_client.api.blobs import fetch, keep
from examples_client.api.chat import chat_page
from examples_client.api.gallery import gallery_thumbnail, upload
from examples_client.api.hello import hello, hello_primes
from examples_client.api.images import images_thumbnail
from examples_client.api.live import live_primes
from examples_client.api.members import me, sign_in
from examples_client.api.notes import create, delete, read
from examples_client.api.orders import order
from examples_client.api.text import facts
from examples_client.api.users import wait_io
from examples_client.api.vectors import nearest
from examples_client.models import Basket, BasketItems, Credentials, Draft, Kept, Problem, Query, UploadBody
from examples_client.types import File

url, path = sys.argv[1:]
image = lambda: File(BytesIO(open(path, "rb").read()), "image.png", "image/png")
client = Client(url, raise_on_unexpected_status=True, timeout=60)
found = {}
found["hello"] = hello.sync("Ada", client=client, punctuation="?")["message"]
found["primes"] = hello_primes.sync(12, client=client)
kept = keep.sync(client=client, body=image())
assert isinstance(kept, Kept)
found["blobs"] = len(fetch.sync(kept.digest, client=client).payload.read()) == kept.size
found["chat"] = b"tea" in chat_page.sync(client=client, room_query="tea").payload.read()
(name,) = upload.sync(client=client, body=UploadBody([image()]))
found["gallery"] = len(gallery_thumbnail.sync(name, client=client).payload.read()) > 50
found["images"] = len(images_thumbnail.sync(client=client, body=image(), size=8).payload.read()) > 50
found["live"] = "event: result" in live_primes.sync(client=client, below=1000)
token = sign_in.sync(client=client, body=Credentials("ada", "lovelace")).token
found["members"] = me.sync(client=AuthenticatedClient(url, token)).name
note = create.sync(client=client, body=Draft("a title"))
found["notes"] = read.sync(note.id, client=client).title
assert delete.sync_detailed(note.id, client=client).status_code == 204
response = read.sync_detailed(note.id, client=client)
assert isinstance(response.parsed, Problem)
found["error"] = f"{response.status_code} {response.parsed.detail}"
items = BasketItems()
items["pen"] = 1
receipt = order.sync(client=client, body=Basket(items))
found["office"] = [receipt.picked[0].item, receipt.picked[0].count]
found["text"] = facts.sync(client=client, body=File(BytesIO(b"The cat sleeps. The dog runs."))).words
found["users"] = len(wait_io.sync(client=client)) > 0
found["vectors"] = nearest.sync(client=client, body=Query([1.0, 0, 0, 0, 0, 0, 0, 0])).distance < 2
print(json.dumps(found))
"""


# Hard cases: they only compile


@pytest.fixture
def hard(tmp_path: Path) -> Path:
    service = load_service(client_app.__file__)
    (tmp_path / "openapi.json").write_bytes(openapi_json(service, plans_of(service), Settings()))
    return tmp_path / "openapi.json"


def test_go_compiles_hard_cases(hard: Path) -> None:
    (go,) = tools("go")
    options = ("--additional-properties=packageName=client,useOneOfDiscriminatorLookup=true",)
    folder = generate("go", hard, *options, "--type-mappings=decimal=string")
    (folder / "test").rename(hard.parent / "test")
    cache = {"GOCACHE": str(FOLDER / "go-cache")} if FOLDER.exists() else {}
    run(go, "vet", "./...", cwd=folder, GOPROXY="off", GOFLAGS="-mod=mod", GOTOOLCHAIN="local", **cache)


def test_typescript_compiles_hard_cases(hard: Path) -> None:
    (tsc,) = tools("tsc")
    folder = generate("typescript-fetch", hard)
    options = {"strict": True, "target": "es2022", "module": "commonjs", "noEmit": True, "lib": ["es2022", "dom"]}
    (folder / "tsconfig.json").write_text(json.dumps({"compilerOptions": {**options, "types": []}}))
    run(tsc, "-p", ".", cwd=folder)


def test_openapi_python_client_makes_hard_cases(hard: Path) -> None:
    generator, _ = tools("openapi-python-client", "ruff")
    folder = hard.parent / "generated"
    output = run(generator, "generate", "--path", hard, "--output-path", folder, cwd=hard.parent)
    reasons = set(re.findall(r"\(Unsupported content_type (.*?)\)", output))
    assert reasons == {"*/*", "application/x-ndjson"}
    assert "Cannot parse" not in re.sub(r"Cannot parse response for status code .*", "", output)
    # a body of two content types, as of a form without files, is beyond it: form.py lacks an import
    run("ruff", "check", "--isolated", "--select=F", "--extend-exclude=form.py", folder, cwd=folder)
    run(sys.executable, "-c", "import client_app_client.api, client_app_client.models", cwd=folder)
