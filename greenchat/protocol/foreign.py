"""Recognition of other protocols by the first line of a connection.

A web page can make a browser send an HTTP request to any port, with lines of the page's own in it; a
scanner or a misdirected client opens with its own protocol's greeting. None of them is a guest.
"""

import re
from typing import Final

__all__ = ["TLS", "is_foreign", "is_http", "status_line"]

TLS: Final = b"\x16"
"""First byte of a TLS handshake record (RFC 8446, section 5.1); no name and no record begins with it."""

# A request or response of any method and version: `GET / HTTP/1.1`, `PRI * HTTP/2.0`, `HTTP/1.1 200 OK`.
_HTTP: Final = re.compile(rb"(?:.*[\t ])?HTTP/\d.*", re.IGNORECASE)

# Other text protocols whose client speaks first, and greetings of servers. Where a line could be the name of a person,
# only what a program sends is matched: `USER bob` and `helo mx.example`, but not `User 1` or `Helo Silva`.
_OPENINGS: Final = b"|".join(
    [
        rb"(?i:(?:.*[\t ])?(?:ICAP|RTSP|SIP)/\d.*)",
        # HTTP/0.9, and requests cut short: `GET /`.
        rb"(?i:(?:CONNECT|DELETE|GET|HEAD|OPTIONS|PATCH|POST|PRI|PUT|TRACE)[\t ]+(?:/|\*|https?:).*)",
        rb"(?i:SSH-\d.*)",
        # SMTP and LMTP.
        rb"(?i:[EL]HLO(?:[\t ].*)?)",
        rb"(?:HELO|helo)[\t ].*",
        rb"(?i:HELO[\t ]+(?:\[|\S*\.).*)",
        rb"(?i:(?:MAIL[\t ]+FROM|RCPT[\t ]+TO):.*)",
        # FTP and POP3, and IRC.
        rb"USER[\t ]+[A-Za-z].*",
        rb"CAP (?:END|LIST|LS|REQ).*",
        # Greetings of SMTP and FTP, POP3, IMAP.
        rb"(?:120|220|421|554)[\t -].*",
        rb"\+OK(?:[\t ].*)?",
        rb"\* (?:BYE|OK|PREAUTH)(?:[\t ].*)?",
        # The PROXY protocol, Redis, XML.
        rb"PROXY (?:TCP[46]|UNKNOWN).*",
        rb"\*\d+",
        rb"<\?xml.*",
    ]
)


def is_foreign(line: bytes) -> bool:
    """Return whether *line*, a connection's first without its line end, opens another protocol."""
    return is_http(line) or re.fullmatch(_OPENINGS, line) is not None  # compiled when first needed


def is_http(line: bytes) -> bool:
    """Return whether *line* is HTTP of a version that has a status line in its responses."""
    return _HTTP.fullmatch(line) is not None


def status_line(text: str) -> bytes:
    """Return *text* as an HTTP response of one line.

    LF alone ends it, which a recipient may take (RFC 9112, section 2.2), and the connection's end the response.
    """
    return f"HTTP/1.1 400 error: {text}\n".encode()
