import pytest
from hypothesis import given
from hypothesis import strategies as st

from greenchat.protocol.foreign import is_foreign
from greenchat.protocol.names import user_name


@pytest.mark.attack(37)
@pytest.mark.parametrize(
    "line",
    [
        b"GET / HTTP/1.1",
        b"POST / HTTP/1.1",
        b"get / http/1.0",
        b"GET  /  HTTP/1.1",
        b"GET\t/\tHTTP/1.1",
        b"GET /chat?x=1 HTTP/1.1 ",
        b"GET http://a.example/ HTTP/1.1",
        b"CONNECT a.example:443 HTTP/1.1",
        b"OPTIONS * HTTP/1.1",
        b"PRI * HTTP/2.0",
        b"GET /x HTTP/3",
        b"HELLO / HTTP/1.1",
        b"M-SEARCH * HTTP/1.1",
        b"!#$ / HTTP/1.1",
        b" GET / HTTP/1.1",
        b"HTTP/1.1 200 OK",
        b"OPTIONS * RTSP/1.0",
        b"OPTIONS sip:a SIP/2.0",
        b"GET /",
        b"get /index.html",
        b"OPTIONS *",
        b"GET https://a.example/",
        b"SSH-2.0-OpenSSH_9.2",
        b"SSH-1.99-x",
        b"ssh-2.0-x",
        b"EHLO",
        b"EHLO a.example",
        b"ehlo [127.0.0.1]",
        b"LHLO a",
        b"HELO a",
        b"helo a",
        b"Helo a.example",
        b"MAIL FROM:<a@b.example>",
        b"mail from:<>",
        b"USER bob",
        b"USER bob 0 * :Bob",
        b"CAP LS 302",
        b"220 a.example ESMTP",
        b"220-a.example FTP",
        b"554 no",
        b"+OK",
        b"+OK POP3 ready",
        b"* OK IMAP4rev1",
        b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2",
        b"PROXY UNKNOWN",
        b"*1",
        b"<?xml version='1.0'?>",
    ],
    ids=ascii,
)
def test_opening_of_another_protocol_is_recognised(line: bytes) -> None:
    assert is_foreign(line)


@pytest.mark.parametrize(
    "name",
    [
        "bob",
        "GET",
        "Post",
        "HELO",
        "Helo Silva",
        "User 1",
        "user bob",
        "USER 1",
        "SSH",
        "ssh fan",
        "HTTP",
        "Mail",
        "220",
        "Room 220",
        "221 Baker Street",
        "ann / bob",
        "ann /bob",
        "Nick Cave",
        "NICK CAVE",
        "+1",
        "*",
        "Jos\u00e9",
        "Cap",
        "O'Brien-2_[x]",
    ],
)
def test_name_of_a_person_is_not_foreign(name: str) -> None:
    assert user_name(name) == name
    assert not is_foreign(name.encode())


@pytest.mark.attack(37)
@given(
    st.text("!#$%&'*+-.^_`|~0123456789ABCXYZabcxyz", min_size=1, max_size=12),
    st.sampled_from(["/", "*", "/x y", "https://a.example/", ""]),
    st.sampled_from(["HTTP/1.1", "http/1.0", "HTTP/2.0", "HTTP/0.9", "HTTP/3"]),
)
def test_request_of_any_method_is_recognised(method: str, target: str, version: str) -> None:
    assert is_foreign(f"{method} {target} {version}".encode())


@given(st.binary(max_size=40))
def test_whatever_is_foreign_stays_so_in_a_longer_request(line: bytes) -> None:
    assert is_foreign(line.replace(b"\n", b"") + b" HTTP/1.1")
