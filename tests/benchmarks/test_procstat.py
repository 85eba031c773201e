import os
import subprocess
import sys

import pytest

from benchmarks.procstat import Usage

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="there is no /proc")


def test_what_this_process_uses() -> None:
    before = Usage.of(os.getpid())
    sum(range(1_000_000))
    assert Usage.of(os.getpid()).since(before).cpu > 0
    assert 0 < before.resident <= before.peak


def test_children_count_while_they_run_and_when_they_have_ended() -> None:
    alone = Usage.of(os.getpid())
    busy = "sum(range(5_000_000)); print(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", busy], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout
        child.stdout.readline()
        assert Usage.of(os.getpid()).since(alone).cpu > 0.02
        assert Usage.of(os.getpid()).resident > alone.resident
        child.communicate(b"\n")
    assert Usage.of(os.getpid()).since(alone).cpu > 0.02


def test_a_process_that_is_gone_uses_nothing() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    assert Usage.of(child.pid) == Usage(0, 0, 0)
