"""A chat room as gevent makes it easiest, for comparison: a queue and a writer greenlet for each member."""

import socket
import sys

import gevent
from gevent.queue import SimpleQueue
from gevent.server import StreamServer

queues: set["SimpleQueue[bytes]"] = set()


def write(sock: socket.socket, queue: "SimpleQueue[bytes]") -> None:
    """Send what is put into the queue."""
    while True:
        sock.sendall(queue.get())


def serve(sock: socket.socket, _address: object) -> None:
    """One connection: a name, then messages for everyone else."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    lines = sock.makefile("rb")
    name = lines.readline().rstrip(b"\n")
    queue: SimpleQueue[bytes] = SimpleQueue()
    queues.add(queue)
    writer = gevent.spawn(write, sock, queue)
    try:
        for line in lines:
            message = name + b": " + line
            for other in queues:
                if other is not queue:
                    other.put(message)
    finally:
        queues.discard(queue)
        writer.kill()


StreamServer(("127.0.0.1", int(sys.argv[1])), serve, backlog=4096).serve_forever()
