"""One file a part. Each has `TITLE` and `measure(options) -> Markdown`."""
