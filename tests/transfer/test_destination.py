import contextlib
import errno
import os
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from conftest import _open_descriptors
from transfer.files import Fails, Unprivileged, begun, contents, fill, locked_by_another, names, only_name

from greenchat.errors import Code, TransferError
from greenchat.protocol.limits import PARTIAL_SECONDS
from greenchat.transfer import destination as destination_module
from greenchat.transfer.destination import Destination

A_DAY = 24 * 3600


@pytest.fixture
def destination(home: Path) -> Iterator[Destination]:
    destination = Destination(home)
    yield destination
    destination.close()


def _interrupted(destination: Destination, name: str, content: bytes = b"half") -> None:
    with begun(destination, name) as partial:
        fill(partial, content)


def _receive(destination: Destination, name: str, content: bytes) -> None:
    with begun(destination, name) as partial:
        fill(partial, content)
        partial.publish()


# --- the directory ----------------------------------------------------------------------------


@pytest.mark.usefixtures("unblocked")
@pytest.mark.parametrize("make", [None, Path.touch, os.mkfifo], ids=["missing", "a file", "a FIFO"])
def test_row_10_no_directory(tmp_path: Path, make: Callable[[Path], None] | None, fails: Fails) -> None:
    if make:
        make(tmp_path / "into")
    with fails(Code.DISK):
        Destination(tmp_path / "into")


def test_row_10_user_is_told_why_without_a_path(tmp_path: Path) -> None:
    with pytest.raises(TransferError) as caught:
        Destination(tmp_path / "gone")
    assert str(caught.value) == "the file could not be written here: no such file or directory"


def test_refusals_are_no_leak(tmp_path: Path, fails: Fails) -> None:
    before = len(_open_descriptors())
    for _ in range(50):
        with fails(Code.DISK):
            Destination(tmp_path / "gone")
    assert len(_open_descriptors()) == before


def test_two_of_one_directory_know_that_they_are(home: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(home)
    with closing(Destination(home)) as one, closing(Destination(tmp_path / "link")) as other:
        assert one.identity == other.identity
    with closing(Destination(tmp_path)) as other:
        assert one.identity != other.identity


def test_directory_may_be_a_link_of_the_user(home: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(home)
    with closing(Destination(tmp_path / "link")) as destination:
        _receive(destination, "a", b"new")
    assert contents(home) == {"a": b"new"}


def test_row_06_directory_that_was_moved_still_gets_the_file(home: Path, destination: Destination) -> None:
    home.rename(home.with_name("moved"))
    _receive(destination, "a", b"new")
    assert contents(home.with_name("moved")) == {"a": b"new"}


def test_row_06_directory_whose_path_leads_elsewhere_still_gets_the_file(
    home: Path, destination: Destination, elsewhere: Path
) -> None:
    home.rename(home.with_name("moved"))
    home.symlink_to(elsewhere)
    _receive(destination, "target", b"new")
    assert contents(home.with_name("moved")) == {"target": b"new"}
    assert contents(elsewhere) == {"target": b"precious"}


def test_row_06_parent_that_is_swapped_leads_nowhere_else(tmp_path: Path, elsewhere: Path) -> None:
    (tmp_path / "parent" / "home").mkdir(parents=True)
    with closing(Destination(tmp_path / "parent" / "home")) as destination:
        (tmp_path / "parent").rename(tmp_path / "old")
        (tmp_path / "parent").mkdir()
        (tmp_path / "parent" / "home").symlink_to(elsewhere)
        _receive(destination, "target", b"new")
        _interrupted(destination, "half")
        destination.tidy()
    assert (tmp_path / "old" / "home" / "target").read_bytes() == b"new"
    assert contents(elsewhere) == {"target": b"precious"}


def test_row_06_parent_that_is_swapped_between_two_downloads_does_not_part_them(home: Path, elsewhere: Path) -> None:
    with closing(Destination(home)) as destination, begun(destination, "target") as partial:
        fill(partial, b"half")
        home.rename(home.with_name("moved"))
        home.symlink_to(elsewhere)
        fill(partial, b" and half")
        partial.publish()
    assert contents(home.with_name("moved")) == {"target": b"half and half"}
    assert contents(elsewhere) == {"target": b"precious"}


def test_row_06_directory_that_was_removed_is_an_error(home: Path, destination: Destination, fails: Fails) -> None:
    home.rmdir()
    with fails(Code.DISK):
        destination.partial("bob", "a")
    destination.tidy()


def test_row_10_directory_that_may_not_be_written_is_an_error(
    home: Path, destination: Destination, unprivileged: Unprivileged, fails: Fails
) -> None:
    home.chmod(0o555)
    with unprivileged(), fails(Code.DISK):
        destination.partial("bob", "a")
    assert not names(home)


def test_directory_that_may_not_be_listed_can_be_chosen(home: Path, unprivileged: Unprivileged) -> None:
    home.chmod(0o300)
    os.chown(home, 65534, -1) if not os.geteuid() else None
    with contextlib.chdir(home.parent):
        home.parent.chmod(0o755)
        with unprivileged():
            Destination(Path("home")).close()
    home.chmod(0o700)


def test_closed_destination_takes_nothing(home: Path, fails: Fails) -> None:
    destination = Destination(home)
    destination.close()
    destination.close()
    with fails(Code.DISK):
        destination.partial("bob", "a")
    destination.tidy()
    assert not names(home)


def test_closed_destination_does_not_take_the_directory_that_got_its_descriptor(
    home: Path, elsewhere: Path, fails: Fails
) -> None:
    destination = Destination(home)
    destination.close()
    another = os.open(elsewhere, os.O_RDONLY)
    with fails(Code.DISK):
        destination.partial("bob", "a")
    os.close(another)
    assert contents(elsewhere) == {"target": b"precious"}


def test_what_is_being_received_outlives_its_destination(home: Path) -> None:
    destination = Destination(home)
    with closing(destination.partial("bob", "a")) as partial:
        destination.close()
        partial.begin("sha256")
        fill(partial, b"new")
        partial.publish()
    assert contents(home) == {"a": b"new"}


# --- tidying ----------------------------------------------------------------------------------


def _age(home: Path, name: str, seconds: float) -> None:
    when = time.time() - seconds
    os.utime(home / name, (when, when), follow_symlinks=False)


def _plant(home: Path, number: int, content: bytes = b"half", age: float = 0.0) -> str:
    name = f".greenchat-{number:032x}.part"
    (home / name).write_bytes(content)
    (home / name).chmod(0o600)
    _age(home, name, age)
    return name


def test_old_partial_is_removed(home: Path, destination: Destination) -> None:
    _interrupted(destination, "a")
    _age(home, only_name(home), PARTIAL_SECONDS + 60)
    destination.tidy()
    assert not names(home)


def test_partial_is_kept_until_it_is_old(home: Path, destination: Destination) -> None:
    _interrupted(destination, "a")
    _age(home, only_name(home), PARTIAL_SECONDS - 60)
    destination.tidy()
    assert names(home)


def test_oldest_of_too_many_are_removed(home: Path, destination: Destination, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(destination_module, "MAX_PARTIALS", 3)
    planted = [_plant(home, number, age=age * 60) for number, age in enumerate([5, 1, 4, 2, 3])]
    destination.tidy()
    assert names(home) == sorted(planted[number] for number in (1, 3, 4))


def test_as_many_as_may_be_stay(home: Path, destination: Destination, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(destination_module, "MAX_PARTIALS", 3)
    planted = [_plant(home, number) for number in range(3)]
    destination.tidy()
    assert names(home) == planted


def test_clock_that_was_set_back_removes_nothing(home: Path, destination: Destination) -> None:
    planted = _plant(home, 1, age=-365 * A_DAY)
    destination.tidy()
    assert names(home) == [planted]


def test_what_somebody_is_using_stays_however_old(
    home: Path, destination: Destination, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(destination_module, "MAX_PARTIALS", 0)
    with begun(destination) as partial:
        fill(partial, b"new")
        _age(home, only_name(home), 2 * PARTIAL_SECONDS)
        destination.tidy()
        partial.publish()
    assert contents(home) == {"a": b"new"}


def test_what_another_program_is_using_stays(
    home: Path, destination: Destination, monkeypatch: pytest.MonkeyPatch
) -> None:
    planted = _plant(home, 1, age=2 * PARTIAL_SECONDS)
    with locked_by_another(home / planted):
        destination.tidy()
        assert names(home) == [planted]
    monkeypatch.setattr(destination_module, "TIDY_SECONDS", 0.0)
    destination.tidy()
    assert not names(home)


NOT_PARTIALS = [
    ".greenchat-0123456789abcdef.part",
    f".greenchat-{1:032X}F.part",
    f".greenchat-{'F' * 32}.part",
    f".greenchat-{'g' * 32}.part",
    f".greenchat-{1:032x}.part\n",
    f".greenchat-{1:032x}.part~",
    f"x.greenchat-{1:032x}.part",
    f".greenchat-{1:032x}",
    ".part",
    "report.pdf",
    ".bashrc",
]


def test_nothing_is_removed_that_is_called_otherwise(
    home: Path, destination: Destination, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(destination_module, "MAX_PARTIALS", 0)
    for name in NOT_PARTIALS:
        (home / name).write_bytes(b"precious")
        _age(home, name, 2 * PARTIAL_SECONDS)
    destination.tidy()
    assert names(home) == sorted(NOT_PARTIALS)


@pytest.mark.usefixtures("unblocked")
@pytest.mark.parametrize("kind", ["link", "dangling link", "link to a directory", "directory", "FIFO"])
def test_row_07_what_is_no_file_is_left_alone(home: Path, destination: Destination, elsewhere: Path, kind: str) -> None:
    planted = home / f".greenchat-{1:032x}.part"
    match kind:
        case "link":
            planted.symlink_to(elsewhere / "target")
        case "dangling link":
            planted.symlink_to(elsewhere / "nowhere")
        case "link to a directory":
            planted.symlink_to(elsewhere)
        case "directory":
            planted.mkdir()
        case "FIFO":
            os.mkfifo(planted)
    _age(home, planted.name, 2 * PARTIAL_SECONDS)
    destination.tidy()
    assert names(home) == [planted.name]
    assert contents(elsewhere) == {"target": b"precious"}


def test_row_07_what_a_link_leads_to_is_not_removed(home: Path, destination: Destination) -> None:
    old = _plant(home, 1, age=PARTIAL_SECONDS / 2)
    link = home / f".greenchat-{2:032x}.part"
    link.symlink_to(old)
    _age(home, link.name, 2 * PARTIAL_SECONDS)
    destination.tidy()
    assert names(home) == sorted([old, link.name])


def test_row_07_other_name_of_a_hard_link_keeps_its_content(
    home: Path, destination: Destination, elsewhere: Path
) -> None:
    planted = home / f".greenchat-{1:032x}.part"
    planted.hardlink_to(elsewhere / "target")
    _age(home, planted.name, 2 * PARTIAL_SECONDS)
    destination.tidy()
    assert contents(elsewhere) == {"target": b"precious"}


def test_file_of_somebody_else_is_left_alone(home: Path, destination: Destination, unprivileged: Unprivileged) -> None:
    if os.geteuid():
        pytest.skip("only a superuser can give files away")
    planted = _plant(home, 1, age=2 * PARTIAL_SECONDS)
    home.chmod(0o777)
    (home / planted).chmod(0o666)
    with unprivileged():
        destination.tidy()
    assert names(home) == [planted]


def test_one_that_cannot_be_removed_does_not_save_the_others(
    home: Path, destination: Destination, monkeypatch: pytest.MonkeyPatch
) -> None:
    stubborn, real = _plant(home, 2, age=3 * PARTIAL_SECONDS), os.unlink
    for number, age in ((1, 2 * PARTIAL_SECONDS), (3, 4 * PARTIAL_SECONDS)):
        _plant(home, number, age=age)

    def unlink(path: Any, **options: Any) -> None:
        if path == stubborn:
            raise OSError(errno.EIO, "")
        real(path, **options)

    monkeypatch.setattr(os, "unlink", unlink)
    destination.tidy()
    assert names(home) == [stubborn]


def test_one_that_is_gone_before_it_is_looked_at_is_no_error(
    home: Path, destination: Destination, monkeypatch: pytest.MonkeyPatch
) -> None:
    _plant(home, 1, age=2 * PARTIAL_SECONDS)
    real = os.stat

    def look(path: Any, **options: Any) -> os.stat_result:
        for name in names(home):
            (home / name).unlink()
        return real(path, **options)

    monkeypatch.setattr(os, "stat", look)
    destination.tidy()
    assert not names(home)


def test_directory_that_may_not_be_listed_is_not_tidied_and_no_error(
    home: Path, destination: Destination, unprivileged: Unprivileged
) -> None:
    planted = _plant(home, 1, age=2 * PARTIAL_SECONDS)
    home.chmod(0o311)
    with unprivileged():
        destination.tidy()
    home.chmod(0o755)
    assert names(home) == [planted]


def test_tidying_follows_the_directory_and_not_its_path(home: Path, destination: Destination, elsewhere: Path) -> None:
    _plant(home, 1, age=2 * PARTIAL_SECONDS)
    kept = _plant(elsewhere, 1, age=2 * PARTIAL_SECONDS)
    home.rename(home.with_name("moved"))
    home.symlink_to(elsewhere)
    destination.tidy()
    assert not names(home.with_name("moved"))
    assert kept in names(elsewhere)
