"""Live lines about the files that move, on a terminal; anywhere else nothing."""

import time

import gevent

from greenchat.client.bars import bars
from greenchat.client.console import Output
from greenchat.client.footer import Footer, has_footer
from greenchat.client.progress import Draw, Progress, plain
from greenchat.protocol.limits import REFRESH_SECONDS
from greenchat.transfer.moving import Traffic

__all__ = ["Display"]


class Display:
    """Shows, at the foot of the terminal *fd* if it is one, what moves; all goes through *output*."""

    def __init__(self, fd: int, output: Output) -> None:
        self._fd = fd
        self._footer = Footer(fd, output)
        self._greenlet: gevent.Greenlet[..., None] | None = None

    def start(self, traffic: Traffic) -> None:
        """Show what *traffic* there is, until `stop`."""
        if has_footer(self._fd):
            self._greenlet = gevent.spawn(self._follow, traffic, bars() or plain)

    def stop(self) -> None:
        """Leave the terminal as it was found. May be called again, and before `start`."""
        if self._greenlet is not None:
            self._greenlet.kill()
        self._footer.show([])

    def _follow(self, traffic: Traffic, draw: Draw) -> None:
        progress = Progress()
        while True:
            traffic.wait()  # without a timer, while nothing moves
            gevent.sleep(REFRESH_SECONDS)
            width, height = self._footer.room()
            rows = progress.rows(traffic, time.monotonic(), height) if height else []
            self._footer.show(draw(rows, width) if rows else [])
