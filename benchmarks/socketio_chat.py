"""A room on python-socketio, on as many processes as have the same Redis: ``python socketio_chat.py PORT [URL]``."""

import sys

import socketio
from aiohttp import web


def main() -> None:
    """Serve until the process is ended."""
    port, url = int(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else None
    manager = socketio.AsyncRedisManager(url) if url else None
    chat = socketio.AsyncServer(async_mode="aiohttp", client_manager=manager, ping_interval=600)

    @chat.event  # type: ignore[untyped-decorator]  # the library has no types
    async def connect(member: str, _environment: object) -> None:
        await chat.enter_room(member, "room")

    @chat.event  # type: ignore[untyped-decorator]  # the same
    async def say(member: str, text: str) -> None:
        await chat.emit("said", text, room="room", skip_sid=member)

    app = web.Application()
    chat.attach(app)
    web.run_app(app, host="127.0.0.1", port=port, print=None, backlog=4096)


if __name__ == "__main__":
    main()
