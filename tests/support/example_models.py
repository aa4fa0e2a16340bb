"""The models that the example `inference` serves, in a store of a test."""

from __future__ import annotations

import sys
from pathlib import Path

from paths import EXAMPLES
from tinysvc import Models

sys.path.insert(0, str(EXAMPLES))
from inference import filetypes
from training import network

ROW = [0.3, -0.2]
"""A row that the network takes."""


def store_with_models(folder: Path) -> str:
    """The store, with a network and a detector of file types in production. The network is untrained, to save time."""
    table = network.read_table(network.spirals(20))
    with Models(str(folder)).publish("classifier", alias="production") as new:
        network.Network(len(ROW), len(table.names)).write(new.path / "network.npz", table)
    filetypes.publish(str(folder))
    return str(folder)
