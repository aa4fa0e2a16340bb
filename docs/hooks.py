"""For mkdocs: replace each link to a file outside docs/ by the name of the file, because the site has no such file."""

from __future__ import annotations

import re
from typing import Any

OUTSIDE = re.compile(r"\[([^\]]+)\]\((\.\./[^)]+)\)")


def on_page_markdown(markdown: str, **_: Any) -> str:
    return OUTSIDE.sub(lambda match: f"`{match[2].removeprefix('../')}`", markdown)
