"""The load generator's ceiling: a thread a connection, blocking sockets, as many bytes back as came, no event loop."""

import socketserver
import sys

ANSWER = b'{"message":"hello","answer":42}'
HEAD = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n"


class Echo(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        while self.rfile.readline():
            lines = iter(self.rfile.readline, b"\r\n")
            head = dict(line.lower().split(b": ", 1) for line in lines)
            body = bytearray(int(head.get(b"content-length", 0)))
            self.rfile.readinto(body)
            self.request.sendall(HEAD % len(body or ANSWER))
            self.request.sendall(body or ANSWER)


class Server(socketserver.ThreadingTCPServer):
    daemon_threads = True


with Server(("127.0.0.1", int(sys.argv[1])), Echo) as server:
    server.serve_forever()
