"""Killed in the middle of publishing, with no time for last words."""

import json
from pathlib import Path

import pytest
from transfer.files import Child

KILLED_AT_EVERY_STEP = """
import errno, fcntl, hashlib, json, os, signal, sys
from greenchat.transfer.destination import Destination
from pathlib import Path

home, existing, linking = Path(sys.argv[1]), sys.argv[2], sys.argv[3] == "links"
STEPS = ("open", "flock", "fstat", "stat", "preadv", "pwrite", "fchmod", "fsync", "link", "rename", "unlink", "close")

def no_link(*arguments, **options):
    raise PermissionError(errno.EPERM, "")

def publish(last):
    left = last
    def counted(call):
        def step(*arguments, **options):
            nonlocal left
            if not left:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1
            return call(*arguments, **options)
        return step
    if not linking:
        os.link = no_link
    for name in STEPS:
        module = fcntl if name == "flock" else os
        setattr(module, name, counted(getattr(module, name)))
    destination = Destination(home)
    partial = destination.partial("bob", "a")
    partial.begin("sha256")
    if partial.size:  # what somebody who was killed has left
        assert partial.digest() == hashlib.sha256(b"new"[:partial.size]).hexdigest()
    partial.fill(lambda write: write(memoryview(b"new"[partial.size:])))
    partial.publish()
    partial.close()
    os._exit(0)

def run(last):
    child = os.fork()
    if not child:
        try:
            publish(last)
        finally:
            os._exit(1)
    return os.waitpid(child, 0)[1]

def look():
    return {file.name: file.read_text() for file in home.iterdir()}

moments = []
for last in range(1000):
    for file in home.iterdir():
        file.unlink()
    if existing:
        (home / "a").write_bytes(existing.encode())
    status = run(last)
    killed = look()
    assert run(-1) == 0
    moments.append([killed, look()])
    if os.WIFEXITED(status):
        print(json.dumps([os.WEXITSTATUS(status), moments]))
        break
"""


@pytest.mark.parametrize("linking", ["links", "no links"])
@pytest.mark.parametrize("existing", ["", "old", "new"], ids=["new", "replaced", "unchanged"])
def test_row_33_killed_before_any_step_the_file_is_exact_or_absent(
    tmp_path: Path, child: Child, existing: str, linking: str
) -> None:
    status, moments = json.loads(child(KILLED_AT_EVERY_STEP, tmp_path, existing, linking))
    assert status == 0
    assert len(moments) > 12
    for killed, repeated in moments:
        assert killed.get("a") in {"new", existing or None, None if linking == "no links" else "new"}
        assert repeated["a"] == "new"
        for there in (killed, repeated):
            assert not existing or existing in there.values()
            assert {name for name in there if not name.startswith(".greenchat-")} <= {"a", "a.~1~", "a.~2~"}
            assert len(there) <= 4
    assert not any(name.startswith(".") for name in moments[-1][0])


KILLED_AT_RANDOM = """
import json, os, random, signal, sys, time
from greenchat.transfer.destination import Destination
from pathlib import Path

home, contents = Path(sys.argv[1]), [bytes([letter]) * 300_000 for letter in b"xyz"]

def publish_for_ever():
    destination, turn = Destination(home), 0
    while True:
        turn += 1
        partial = destination.partial("bob", "a")
        partial.begin("sha256")
        partial.restart()
        partial.fill(lambda write: write(memoryview(contents[turn % 3])))
        partial.publish()
        partial.close()
        if turn % 50 == 0:
            for backup in home.glob("a.~*~"):
                backup.unlink()

dice = random.Random(0)
for _ in range(20):
    child = os.fork()
    if not child:
        try:
            publish_for_ever()
        finally:
            os._exit(1)
    time.sleep(dice.random() / 20)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    for file in home.iterdir():
        if not file.name.startswith("."):
            assert file.read_bytes() in contents, file
print(len(list(home.glob(".*"))))
"""


def test_row_33_killed_at_random_moments_every_name_is_of_a_whole_file(tmp_path: Path, child: Child) -> None:
    left = int(child(KILLED_AT_RANDOM, tmp_path))
    assert left <= 20  # what is hidden is one at most for each who was killed, and is tidied later
