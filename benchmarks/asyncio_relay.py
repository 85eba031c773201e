"""A relay as asyncio's streams make it: ``asyncio_relay.py PORT TARGET [uvloop]``."""

import asyncio
import sys

STEP = 256 * 1024  # what asyncio's own transports read at once


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One way, to its end."""
    while data := await reader.read(STEP):
        writer.write(data)
        await writer.drain()
    writer.write_eof()


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One connection, joined to one to the target."""
    far_reader, far_writer = await asyncio.open_connection("127.0.0.1", int(sys.argv[2]), limit=STEP)
    try:
        await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer))
    finally:
        far_writer.close()
        writer.close()


async def main() -> None:
    """Serve for ever."""
    server = await asyncio.start_server(serve, "127.0.0.1", int(sys.argv[1]), limit=STEP, backlog=1024)
    await server.serve_forever()


if sys.argv[3:]:
    import uvloop

    uvloop.run(main())
else:
    asyncio.run(main())
