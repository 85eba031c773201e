from collections.abc import Callable, Sequence

import pytest

from greenchat import cli


@pytest.mark.parametrize(
    ("run", "arguments", "shown"),
    [
        (cli.main, ["--help"], "greenchat"),
        (cli.server, ["--help"], "--host ADDR"),
        (cli.client, ["--help"], "--transfer"),
        (cli.client, ["--help"], "--parallel N"),
        (cli.client, ["--help"], "--limit-rate RATE"),
        (cli.main, ["server", "--help"], "usage: greenchat server"),
        (cli.names, ["--help"], "invite"),
        (cli.main, ["client", "--help"], "usage: greenchat client"),
    ],
    ids=["greenchat", "server", "client", "parallel", "limit-rate", "greenchat-server", "names", "greenchat-client"],
)
def test_help_is_on_standard_output(
    run: Callable[[Sequence[str]], int], arguments: list[str], shown: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        run(arguments)
    assert ended.value.code == 0
    assert shown in capsys.readouterr().out


@pytest.mark.attack(36)
@pytest.mark.parametrize(
    ("run", "arguments", "hint"),
    [
        (cli.client, ["-l", "0", "-p", "0"], "no server listens at port 0"),
        (cli.client, ["-l", "0", "--port", "6001"], "give the port of the server with -p"),
        (cli.client, ["-l", "0", "--port=6001"], "give the port of the server with -p"),
        (cli.client, ["-l", "0", "--port"], "give the port of the server with -p"),
        (cli.client, ["--listen", "0", "-p", "6001"], "give the port with -l"),
        (cli.client, ["-l", "0", "-p", "6001", "--accept", "y"], "give all, known"),
        (cli.client, ["-l", "0", "-p", "6001", "--accept", ""], "give all, known"),
        (cli.client, ["-l", "0", "-p", "6001", "--host", "::1]:6001"], "is no host"),
        (cli.client, ["-l", "0", "-p", "6001", "--host", "example.org:6001"], "and the port with -p"),
        (cli.client, ["-l", "0", "-p", "6001", "--server", "example.org:0"], "no server listens at port 0"),
        (cli.server, ["-p", "6001"], "give the port alone"),
        (cli.server, ["--port", "6001"], "give the port alone"),
        (cli.server, ["6001", "--host", "0.0.0.0:6001"], "and the port as an argument of its own"),
        (cli.server, ["6001", "--host", ""], "is no host"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else getattr(value, "__name__", None),
)
def test_wrong_option_gets_a_hint(
    run: Callable[[Sequence[str]], int], arguments: list[str], hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        run(arguments)
    err = capsys.readouterr().err
    assert (ended.value.code, err.count("\n")) == (2, 1)
    assert hint in err


@pytest.mark.parametrize(
    ("run", "arguments"),
    [
        (cli.main, []),
        (cli.main, ["dance"]),
        (cli.main, ["server"]),
        (cli.server, ["0", "more"]),
        (cli.server, ["0", "--colour"]),
        (cli.client, ["-l", "5000"]),
        (cli.client, ["-l", "5000", "-p", "1.5"]),
        (cli.client, ["-l", "1023", "-p", "6001"]),
        (cli.client, ["-l", "\u0665", "-p", "6001"]),
        (cli.client, ["-l", "0", "-p", "6001", "--parallel", "0"]),
        (cli.client, ["-l", "0", "-p", "6001", "--parallel"]),
        (cli.client, ["-l", "0", "-p", "6001", "--limit-rate", "fast"]),
        (cli.client, ["-l", "0", "-p", "6001", "--limit-rate", "1\n2"]),
        (cli.client, ["-l", "0", "-p", "6001", "--share", ""]),
        (cli.client, ["-l", "0", "-p", "6001", "--fingerprint", "SHA256:short"]),
        (cli.client, ["-l", "0", "-p", "6001", "--tls", "--insecure"]),
        (cli.server, ["0", "--tls", "--insecure"]),
        (cli.server, ["0", "--tls-cert", "file", "--insecure"]),
        (cli.server, ["0", "--tls", "--tls-key", "file"]),
        (cli.server, ["0", "--members-only"]),
        (cli.client, ["-l", "0", "-p", "6001", "--invite", "x"]),
        (cli.names, []),
        (cli.names, ["ban", "ann"]),
        (cli.names, ["invite", "--hours", "0"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else value.__name__,
)
def test_row_36_wrong_usage_is_one_line_and_status_2(
    run: Callable[[Sequence[str]], int], arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        run(arguments)
    out, err = capsys.readouterr()
    assert ended.value.code == 2
    assert out == ""
    assert err.count("\n") == 1
    assert err.rstrip().endswith("--help")
