#!/usr/bin/env python3
"""The chat client: ``python ChatClient.py -l <own port> -p <server's port>``."""

import signal
import sys

signal.signal(signal.SIGINT, signal.SIG_DFL)  # until the program handles it, it ends without a traceback

from greenchat.cli import client  # noqa: E402

if __name__ == "__main__":
    sys.exit(client())
