"""A chat room as asyncio's streams make it easiest, for comparison: ``asyncio_chat.py PORT [uvloop]``."""

import asyncio
import sys

writers: set[asyncio.StreamWriter] = set()


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One connection: a name, then messages for everyone else."""
    name = (await reader.readline()).rstrip(b"\n")
    writers.add(writer)
    try:
        while line := await reader.readline():
            message = name + b": " + line
            for other in writers:
                if other is not writer:
                    other.write(message)
    finally:
        writers.discard(writer)
        writer.close()


async def main() -> None:
    """Serve for ever."""
    server = await asyncio.start_server(serve, "127.0.0.1", int(sys.argv[1]), backlog=4096)
    await server.serve_forever()


if sys.argv[2:]:
    import uvloop

    uvloop.run(main())
else:
    asyncio.run(main())
