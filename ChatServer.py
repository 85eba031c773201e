#!/usr/bin/env python3
"""The chat server: ``python ChatServer.py <port>``."""

import sys

from greenchat.cli import server

if __name__ == "__main__":
    sys.exit(server())
