"""gevent's own server with a handler that only reads: the least that a connection costs on green threads."""

import sys

from gevent import socket
from gevent.server import StreamServer


def serve(sock: socket.socket, _address: object) -> None:
    """One connection, to whose end everything is thrown away."""
    while sock.recv(4096):
        pass


StreamServer(("127.0.0.1", int(sys.argv[1])), serve, backlog=1024).serve_forever()
