"""For mkdocs: what links out of the folder, to a file of the checkout, is only named in the site."""

from __future__ import annotations

import re
from typing import Any

OUTSIDE = re.compile(r"\[([^\]]+)\]\((\.\./[^)]+)\)")


def on_page_markdown(markdown: str, **_: Any) -> str:
    return OUTSIDE.sub(lambda match: f"`{match[2].removeprefix('../')}`", markdown)
