"""Reads `multipart/form-data` (RFC 7578), piece by piece. The `multipart` library implements the grammar."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import unquote_to_bytes

from .errors import HTTPError
from .form_data import (
    MAX_PARTS,
    FormData,
    JsonText,
    Spool,
    UploadFile,
    codec_of,
    content_type_parameters,
    is_json_type,
    malformed_form,
)
from .optional_libraries import missing_library
from .query import CONTROL_CHARACTERS
from .units import KiB

MAX_PREAMBLE = 4 * KiB
"""Bytes before the first boundary, which are skipped (RFC 2046, 5.1.1)."""

MAX_PART_HEADER = 4 * KiB
"""Bytes of one header line of a part: it holds the names of a field and of a file."""

MAX_PART_HEADERS = 8
"""Header lines of one part. RFC 7578 defines three."""

MAX_BOUNDARY = 70
"""Characters of the line between the parts (RFC 2046, 5.1.1)."""


class MultipartReader:
    """Turns the events of the library (a part, its pieces, None at its end) into fields and files."""

    def __init__(self, form: FormData, spool: Spool, parameters: dict[str, str]) -> None:
        if missing := missing_library("multipart"):
            raise RuntimeError(missing)
        from multipart import MultipartError, ParserLimitReached, PushMultipartParser

        boundary = _boundary(parameters)
        self._charset = parameters.get("charset", "utf-8")
        codec_of(self._charset, "form")
        self._limit_reached, self._malformed = ParserLimitReached, MultipartError
        self._parser = PushMultipartParser(
            boundary,
            max_header_size=MAX_PART_HEADER,
            max_header_count=MAX_PART_HEADERS,
            max_segment_count=MAX_PARTS,
            header_charset="latin-1",
        )
        self._form, self._spool = form, spool
        self._first_line = b"\r\n--" + boundary
        self._beginning: bytes | None = b"\r\n"  # the bytes before the first boundary, until that has arrived
        self._has_preamble = False  # and no part yet
        self._part: _Part | None = None
        self.held = 0
        """Bytes of text fields, which stay in memory."""

    def feed(self, data: bytes) -> None:
        """Read the next piece. HTTPError 400 for a malformed form, 413 for one over a limit."""
        if self._beginning is not None:
            data = self._beginning + data
            start = data.find(self._first_line, 0, MAX_PREAMBLE + len(self._first_line))
            if start < 0:
                if len(data) >= MAX_PREAMBLE + len(self._first_line):
                    raise malformed_form(f"its first {MAX_PREAMBLE} bytes contain no boundary")
                self._beginning = data
                return
            self._beginning, data = None, data[start + 2 :]
            self._has_preamble = start > 0
        try:
            for event in self._parser.parse(data):
                self._on_event(event)
        except self._limit_reached as error:
            most = f"{MAX_PARTS} parts, or {MAX_PART_HEADERS} headers of {MAX_PART_HEADER} bytes in one"
            raise HTTPError(413, f"The form has more than {most}: {error}.") from None
        except self._malformed as error:
            raise malformed_form(str(error)) from None

    def finish(self) -> None:
        """Check that the form is complete. HTTPError 400 if it is not."""
        if self._beginning is not None or self._has_preamble:  # parts between other boundaries are not a preamble
            raise malformed_form("no part begins with the boundary of the Content-Type")
        try:
            self._parser.close()
        except self._malformed as error:
            raise malformed_form(str(error)) from None

    def _on_event(self, event: Any) -> None:
        part = self._part
        if part is None:
            self._part = part = _Part(event, self._charset)
            self._has_preamble = False
            if part.upload is not None:
                self._spool.open(part.upload)
        elif event is None:
            self._part = None
            self._end_part(part)
        elif part.upload is not None:
            self._spool.write(part.upload, bytes(event))
        else:
            self.held += len(event)
            part.pieces.append(bytes(event))

    def _end_part(self, part: _Part) -> None:
        upload = part.upload
        if upload is None:
            text = part.text()
            self._form.fields.setdefault(part.name, []).append(text)
            if part.name == "_charset_":  # the charset of the fields that follow (RFC 7578, 4.6)
                self._charset = text
        elif upload.size or upload.filename:  # a browser sends an empty part for a file input without a file
            self._form.files.setdefault(part.name, []).append(upload)


class _Part:
    """A part that is being read: a file or a field. `charset` applies to a field that declares none."""

    def __init__(self, segment: Any, charset: str) -> None:
        headers = {name: _header_text(value, charset) for name, value in segment.headerlist}
        for header, value in headers.items():
            if CONTROL_CHARACTERS.search(value):
                raise malformed_form(f"the header {header} of a part holds a control character")
        if not segment.name:
            raise malformed_form("a part has no name")
        name, filename = _header_text(segment.name, charset), segment.filename
        if filename is not None:
            filename = _header_text(filename, charset)
        if "filename*" in headers["Content-Disposition"].lower():
            filename = _extended_filename(headers["Content-Disposition"], filename or "")
        if CONTROL_CHARACTERS.search(name + (filename or "")):
            raise malformed_form("the name of a part, or of its file, holds a control character")
        encoding = headers.get("Content-Transfer-Encoding", "binary").strip().lower()
        if encoding not in ("binary", "8bit", "7bit"):
            raise malformed_form(
                f"a part has the Content-Transfer-Encoding {encoding[:100]!r}, which RFC 7578 has deprecated; "
                "send the bytes as they are"
            )
        self.name = name
        self.pieces: list[bytes] = []
        self.upload: UploadFile | None = None
        content_type = headers.get("Content-Type", "").strip()
        self._is_json = is_json_type(content_type)
        if filename is not None:
            self.upload = UploadFile(name, _last_segment(filename), content_type or "application/octet-stream")
        else:
            default = "utf-8" if self._is_json else charset
            self._codec = codec_of(content_type_parameters(content_type)[1].get("charset", default), f"field {name!r}")

    def text(self) -> str:
        try:
            text = b"".join(self.pieces).decode(self._codec)
        except UnicodeDecodeError as error:
            codec = "UTF-8" if self._codec == "utf-8" else self._codec
            raise malformed_form(
                f"the field {self.name!r} is not {codec}: {error.reason} at byte {error.start}"
            ) from None
        return JsonText(text.removeprefix("\ufeff")) if self._is_json else text


def _boundary(parameters: dict[str, str]) -> bytes:
    boundary = parameters.get("boundary", "")
    if not 0 < len(boundary) <= MAX_BOUNDARY or not boundary.isascii() or not boundary.isprintable():
        raise HTTPError(
            400, f"The Content-Type must name a boundary of 1 to {MAX_BOUNDARY} characters, not {boundary[:100]!r}."
        )
    return boundary.encode()


def _header_text(latin: str, charset: str) -> str:
    """A header, which the library decodes as Latin-1: browsers write UTF-8, or the charset of the form."""
    octets = latin.encode("latin-1")
    try:
        return octets.decode()
    except UnicodeDecodeError:
        return octets.decode(codec_of(charset, "form") if charset not in ("", "utf-8") else "cp1252", "replace")


_PARAMETER = re.compile(r"""(?:"(?:[^"\\]|\\.)*"|[^;"])+""")


def _extended_filename(disposition: str, otherwise: str) -> str:
    """The file's name in `filename*` (RFC 8187), which takes precedence over `filename` (RFC 6266, 4.3)."""
    for parameter in _PARAMETER.findall(disposition):
        key, _, value = parameter.partition("=")
        if key.strip(" \t").lower() == "filename*":
            charset, _, rest = value.strip(' \t"').partition("'")
            encoded = rest.partition("'")[2]  # after the language
            try:
                return unquote_to_bytes(encoded).decode(codec_of(charset, "file's name"))
            except UnicodeDecodeError:
                return otherwise
    return otherwise


def _last_segment(filename: str) -> str:
    """The last part of a path of any operating system: the client's folders mean nothing here."""
    name = filename.replace("\\", "/").rpartition("/")[2].strip()
    return "" if name in (".", "..") else name
