"""`--proto` and `--proto --check`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tinysvc.__main__ import main

SHOP = """
from dataclasses import dataclass
from tinysvc import Response, io_route

@dataclass
class Order:
    id: int
    note: str = ""

@io_route("/buy", methods=["POST"])
async def buy(order: Order) -> Order:
    return order

@io_route("/page")
async def page() -> Response:
    return Response("x")
"""


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delitem(sys.modules, "proto_shop", raising=False)
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "proto_shop.py"
    path.write_text(SHOP)
    return path


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    sys.modules.pop("proto_shop", None)
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    out, err = capsys.readouterr()
    return int(ended.value.code or 0), out, err


def test_printed_file_locks_the_numbers(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, text, err = run(capsys, str(shop), "--proto")
    assert (status, err) == (0, "tinysvc: only HTTP serves /page: its result is a Response\n")
    assert text.startswith("// Printed by: python -m tinysvc proto_shop.py --proto\n")
    assert "rpc Buy(BuyRequest) returns (Order);" in text
    lock = shop.with_suffix(".proto")
    lock.write_text(text.replace("int64 id = 1", "int64 id = 5"))
    assert "int64 id = 5;" in run(capsys, str(shop), "--proto")[1]


def test_check_names_what_breaks_clients(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lock = shop.with_suffix(".proto")
    status, out, _ = run(capsys, str(shop), "--proto", "--check")
    assert (status, "there is no such file" in out) == (1, True)
    lock.write_text(run(capsys, str(shop), "--proto")[1])
    assert run(capsys, str(shop), "--proto", "--check") == (0, f"{lock}: fits the code\n", "")
    shop.write_text(SHOP.replace('note: str = ""', 'note: str = ""\n    more: int = 0'))
    state, remedy = f"{lock}: is out of date", "print it again with --proto, and commit it\n"
    assert run(capsys, str(shop), "--proto", "--check") == (0, f"{state}: it lacks Order.more; {remedy}", "")
    shop.write_text(SHOP.replace('note: str = ""', "more: int = 0"))
    says = f"{state}: it lacks Order.more; it still has Order.note; {remedy}"
    assert run(capsys, str(shop), "--proto", "--check") == (0, says, "")
    shop.write_text(SHOP.replace("id: int", "id: str"))
    status, out, _ = run(capsys, str(shop), "--proto", "--check")
    assert (status, out) == (1, f"{lock}: Order.id was int64, and is string (FIELD_SAME_TYPE)\n")
    status, out, err = run(capsys, str(shop), "--proto")
    assert (status, out) == (3, "")
    assert "Order.id was int64, and is string" in err


def test_file_that_the_shell_has_emptied_is_read_from_git(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = run(capsys, str(shop), "--proto")[1].replace("int64 id = 1", "int64 id = 5")
    lock = shop.with_suffix(".proto")
    lock.write_text(text)
    for command in (["init", "-q"], ["add", lock.name]):
        subprocess.run(["git", *command], cwd=shop.parent, check=True)
    lock.write_text("")
    assert "int64 id = 5;" in run(capsys, str(shop), "--proto")[1]


def test_service_that_grpc_cannot_serve(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shop.write_text(SHOP[: SHOP.index("@io_route")] + SHOP[SHOP.index('@io_route("/page")') :])
    status, _, err = run(capsys, str(shop), "--proto")
    assert (status, "/page: its result is a Response" in err) == (3, True)


def test_check_alone_is_refused(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, str(shop), "--check")[0] == 2
