"""The wire, as pure functions and state machines: bytes in, events out; no socket, no file, no gevent."""
