"""Unicode's table of characters that look like others, read when a name first needs it."""

import functools

__all__ = ["lookalikes"]


@functools.cache
def lookalikes() -> dict[int, str]:
    """Return what stands for each character that looks like another, as `str.translate` takes it.

    The file is made by tools/lookalikes.py.
    """
    import pkgutil  # here, because a client that starts need not wait for it

    table = pkgutil.get_data("greenchat.protocol", "lookalikes.txt")
    assert table is not None
    lines = (line.split(": ") for line in table.decode().splitlines() if not line.startswith("#"))
    return {int(point, 16): _text(like) for like, points in lines for point in points.split()}


def _text(points: str) -> str:
    return "".join(chr(int(point, 16)) for point in points.split())
