"""Run each service of the office in a process of its own: python examples/office (or: make office)

With --grpc, orders calls the other two by gRPC; the code of the services is the same. A service that ends is started
again two seconds later. Ctrl-C ends all.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import FrameType

PAUSE = 2.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ports", type=int, nargs=3, default=[8000, 8001, 8002], help="of orders, pricing and stock")
    parser.add_argument("--grpc", action="store_true", help="call pricing and stock by gRPC")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="office-") as folder:
        run(commands(arguments.ports, folder if arguments.grpc else ""), arguments.ports[0])


def commands(ports: list[int], folder: str = "") -> dict[str, list[str]]:
    """The command of each service. If there is a folder, it has the Unix sockets of gRPC."""
    if folder:
        services = f"pricing=grpc+unix:{folder}/pricing.sock stock=grpc+unix:{folder}/stock.sock"
        by_grpc = {name: ("--grpc", f"unix:{folder}/{name}.sock") for name in ("pricing", "stock")}
    else:
        services = f"pricing=http://127.0.0.1:{ports[1]} stock=http://127.0.0.1:{ports[2]}"
        by_grpc = {}
    return {
        "orders": command("orders", ports[0], "--services", services),
        "pricing": command("pricing", ports[1], *by_grpc.get("pricing", ())),
        "stock": command("stock", ports[2], *by_grpc.get("stock", ())),
    }


def run(commands: dict[str, list[str]], port: int) -> None:
    """Start the services, and start those again that end."""
    signal.signal(signal.SIGTERM, interrupt)
    running = {name: subprocess.Popen(each) for name, each in commands.items()}
    print(f"open http://127.0.0.1:{port} in a browser; end with Ctrl-C", flush=True)
    try:
        while True:
            time.sleep(PAUSE)
            for name, process in running.items():
                if process.poll() is not None:
                    print(f"{name} has ended with status {process.returncode}; starting it again", flush=True)
                    running[name] = subprocess.Popen(commands[name])
    except KeyboardInterrupt:
        for process in running.values():
            process.terminate()
        for process in running.values():
            process.wait()


def command(name: str, port: int, *options: str) -> list[str]:
    file = Path(__file__).with_name(f"{name}.py")
    return [sys.executable, "-m", "tinysvc", str(file), "--port", str(port), *options]


def interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
