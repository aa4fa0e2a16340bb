"""The ceiling: asyncio streams on uvloop that answer each empty line with fixed bytes and parse nothing.

The bytes are a small JSON object, or, where a size is given, a JSON string of as many bytes.
"""

import asyncio
import sys

import uvloop

BODY = b'"%b"' % (b"x" * (int(sys.argv[2]) - 2)) if sys.argv[2:] else b'{"message":"hello","answer":42}'
REPLY = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n"
    b"date: Thu, 01 Jan 1970 00:00:00 GMT\r\n\r\n%b" % (len(BODY), BODY)
)


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(REPLY * data.count(b"\r\n\r\n"))
    writer.close()


async def main(port: int) -> None:
    server = await asyncio.start_server(serve, "127.0.0.1", port)
    await server.serve_forever()


uvloop.run(main(int(sys.argv[1])))
