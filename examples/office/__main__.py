"""Run each service of the office in a process of its own: python examples/office (or: make office)

A service that ends is started again two seconds later. Ctrl-C ends all.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

PAUSE = 2.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ports", type=int, nargs=3, default=[8000, 8001, 8002], help="of orders, pricing and stock")
    ports = parser.parse_args().ports
    services = f"pricing=http://127.0.0.1:{ports[1]} stock=http://127.0.0.1:{ports[2]}"
    commands = {
        "orders": command("orders", ports[0], "--services", services),
        "pricing": command("pricing", ports[1]),
        "stock": command("stock", ports[2]),
    }
    signal.signal(signal.SIGTERM, interrupt)
    running = {name: subprocess.Popen(each) for name, each in commands.items()}
    print(f"open http://127.0.0.1:{ports[0]} in a browser; end with Ctrl-C", flush=True)
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
