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
