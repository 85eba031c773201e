#!/usr/bin/env python3
"""The chat server: ``python ChatServer.py <port>``."""

import signal
import sys

signal.signal(signal.SIGINT, signal.SIG_DFL)  # until the program handles it, it ends without a traceback

from greenchat.cli import server  # noqa: E402

if __name__ == "__main__":
    sys.exit(server())
