"""One file per part, with `TITLE` and `measure(options) -> Markdown`."""
