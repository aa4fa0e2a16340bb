"""Units of sizes, in bytes."""

from __future__ import annotations

KiB, MiB = 1024, 1024 * 1024
