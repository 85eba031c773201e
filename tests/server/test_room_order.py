from conftest import until
from hypothesis import given, settings
from hypothesis import strategies as st
from server.fake_member import FakeMember

from greenchat.server.room import Room


class Story:
    """What happened in a room, and what each member ought to have heard of it."""

    def __init__(self) -> None:
        self.room = Room()
        self.here: dict[int, FakeMember] = {}
        self.due: dict[FakeMember, list[bytes]] = {}
        self.began: dict[FakeMember, int] = {}
        """The position that each was told when it joined."""
        self.gone: list[FakeMember] = []
        self.count = 0

    def step(self, kind: str, who: int) -> None:
        if kind == "join" and who not in self.here:
            self.here[who] = FakeMember(f"n{who}", tracked=who % 2 == 1)
            self.due[self.here[who]] = []
            self.began[self.here[who]] = self.count
            self.room.join(self.here[who])
        elif kind == "leave" and who in self.here:
            self.room.leave(self.here[who])
            self.gone.append(self.here.pop(who))
        elif kind == "post" and who in self.here:
            self.post(who)
        elif kind == "turn" and self.here:
            self.turn()

    def post(self, who: int) -> None:
        self.count += 1
        self.room.post(self.here[who], b"%d\n" % self.count)
        for other, ear in self.here.items():
            if other != who:
                self.due[ear].append(b"n%d: %d\n" % (who, self.count))
            elif ear.tracked:
                self.due[ear].append(b"(1 to %d)\n" % ear.said)

    def turn(self) -> None:
        """Let the room's own greenlet do its pass."""
        until(lambda: all(ear.heard == b"".join(self.due[ear]) for ear in self.here.values()))


STEPS = st.lists(st.tuples(st.sampled_from(["join", "post", "post", "post", "leave", "turn"]), st.integers(0, 3)))


@given(STEPS)
@settings(deadline=None)
def test_same_order_for_all_own_lines_never_or_as_acknowledgements_nothing_lost_or_doubled(
    steps: list[tuple[str, int]],
) -> None:
    story = Story()
    for who in range(3):
        story.step("join", who)
    for kind, who in steps:
        story.step(kind, who)
    story.room.close()
    for ear in story.here.values():
        assert ear.heard == b"".join(story.due[ear])
        if ear.tracked:  # it can count itself where it is
            assert story.began[ear] + ear.heard.count(b"\n") == story.room.log.position
    for ear in story.gone:  # who leaves may miss what was said in that very turn, but nothing in between
        assert b"".join(story.due[ear]).startswith(ear.heard)
        assert ear.heard.endswith(b"\n") or not ear.heard
