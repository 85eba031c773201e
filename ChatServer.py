#!/usr/bin/env python3
"""The chat server: ``python ChatServer.py <port>``."""

import os
import sys

HERE = os.path.dirname(os.path.realpath(__file__))

# Fetched files may lie here. Only the package is imported from here, and it then makes all other imports safe.
sys.path = [entry for entry in sys.path if entry != HERE]
if os.path.isdir(os.path.join(HERE, "greenchat")):
    sys.path.insert(0, HERE)

try:
    from greenchat.launch import launch
except ImportError:
    sys.exit("ChatServer.py is alone: start it beside its package, the directory greenchat, or install that")

if __name__ == "__main__":
    sys.exit(launch("server"))
