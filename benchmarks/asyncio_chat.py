"""A chat room as asyncio's streams make it easiest: the same guest protocol, for comparison."""

import asyncio
import sys

writers: set[asyncio.StreamWriter] = set()


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One connection: a name, then messages for everyone else."""
    name = (await reader.readline()).rstrip(b"\n")
    writers.add(writer)
    try:
        while line := await reader.readline():
            for other in writers:
                if other is not writer:
                    other.write(name + b": " + line)
    finally:
        writers.discard(writer)
        writer.close()


async def main() -> None:
    """Serve for ever."""
    server = await asyncio.start_server(serve, "127.0.0.1", int(sys.argv[1]))
    await server.serve_forever()


asyncio.run(main())
