from pathlib import Path

import pytest

from benchmarks import start


def test_programs_and_bare_import_get_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start, "ROUNDS", 1)
    results = start.run()
    assert [*results.tables[0].rows] == ["Python alone", "bare import", "ChatServer.py", "ChatClient.py"]
    assert all(figures["ready"] > 0 for figures in results.tables[0].rows.values())


def test_program_that_does_not_get_ready_is_told(tmp_path: Path) -> None:
    with (
        pytest.raises(SystemExit, match="ended before it was ready: no"),
        start._Start(["-c", "print('no')"], tmp_path, b"yes"),
    ):
        pass
