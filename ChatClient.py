#!/usr/bin/env python3
"""The chat client: ``python ChatClient.py -l <own port> -p <server's port>``."""

import sys

from greenchat.cli import client

if __name__ == "__main__":
    sys.exit(client())
