from collections.abc import Iterator

import pytest

from greenchat.client.menu import MENU, run_menu


class Recorder:
    """What the menu asked for, in order."""

    def __init__(self) -> None:
        self.done: list[tuple[str, ...]] = []
        self.paused = False

    def show(self, line: str) -> None:
        self.done.append(("show", line))

    def hint(self, line: str) -> None:
        self.done.append(("hint", line))

    def send(self, text: str) -> None:
        self.done.append(("send", text))

    def answer(self, number: int, *, yes: bool) -> None:
        self.done.append(("answer", str(number), "yes" if yes else "no"))

    def reject(self, line: str) -> None:
        self.done.append(("reject", line))

    def help(self) -> None:
        self.done.append(("help",))

    def pause(self) -> None:
        assert not self.paused
        self.paused = True

    def resume(self) -> None:
        self.paused = False

    def request(self, owner: str, file: str) -> None:
        self.done.append(("request", owner, file))


def done(*lines: str) -> list[tuple[str, ...]]:
    recorder = Recorder()
    run_menu(iter(lines), recorder)
    return recorder.done


SHOWN = ("show", MENU)


def test_menu_is_the_seeds_to_the_byte() -> None:
    assert MENU == "Enter an option ('m', 'f', 'x'):\n  (M)essage (send)\n  (F)ile (request)\n e(X)it"


@pytest.mark.parametrize("option", ["m", "M", " m "])
def test_a_message_is_asked_for_and_sent(option: str) -> None:
    assert done(option, "hello!", "x") == [SHOWN, ("show", "Enter your message:"), ("send", "hello!"), SHOWN]


@pytest.mark.parametrize("text", [" ", " x ", "m", "\ttabbed  "])
def test_a_message_is_sent_as_it_was_typed(text: str) -> None:
    assert ("send", text) in done("m", text, "x")


@pytest.mark.parametrize("option", ["f", "F"])
def test_a_file_is_requested_by_owner_then_name(option: str) -> None:
    assert done(option, "client1", "fish.jpg", "x") == [
        SHOWN,
        ("show", "Who owns the file?"),
        ("show", "Which file do you want?"),
        ("request", "client1", "fish.jpg"),
        SHOWN,
    ]


def test_spaces_around_an_owner_are_not_of_its_name() -> None:
    assert ("request", "ann", " fish.jpg") in done("f", " ann ", " fish.jpg", "x")


@pytest.mark.parametrize("lines", [[""], [" "], ["m", ""], ["f", ""], ["f", " "], ["f", "ann", ""]])
def test_empty_answer_goes_back_to_the_menu(lines: list[str]) -> None:
    found = done(*lines, "x")
    assert {what for what, *_ in found} == {"show"}
    assert found[-1] == SHOWN


@pytest.mark.attack(39)
@pytest.mark.parametrize(("option", "answer"), [("y 1", ("1", "yes")), ("Y1", ("1", "yes")), ("n  17", ("17", "no"))])
def test_question_is_answered_by_its_number(option: str, answer: tuple[str, str]) -> None:
    assert done(option, "x") == [SHOWN, ("answer", *answer), SHOWN]


@pytest.mark.attack(39)
@pytest.mark.parametrize("option", ["y", "n", "Y"])
def test_answer_without_a_number_is_none(option: str) -> None:
    assert done(option, "x") == [SHOWN, ("reject", "type the number of the question too, as in y 1"), SHOWN]


@pytest.mark.parametrize("option", ["q", "quit", "exit"])
def test_wish_to_leave_is_understood(option: str) -> None:
    assert done(option, "x") == [SHOWN, ("reject", "to leave, type x, then Enter"), SHOWN]


@pytest.mark.parametrize("option", ["?", "help", " HELP "])
def test_help_is_shown(option: str) -> None:
    assert done(option, "x") == [SHOWN, ("help",), SHOWN]


@pytest.mark.parametrize("option", ["mf", "y1y", "y \uff11", "y -1", "\u24dc"])
def test_anything_else_is_rejected_and_the_menu_comes_again(option: str) -> None:
    told = "no such option: type m, f or x, then Enter; ? shows what else there is"
    assert done(option, "x") == [SHOWN, ("reject", told), SHOWN]


def test_input_that_ends_is_told_from_x() -> None:
    assert run_menu(iter(["x", "m"]), Recorder())
    assert not run_menu(iter(["m"]), Recorder())


@pytest.mark.parametrize("option", ["x", "X", "x "])
def test_nothing_is_read_after_x(option: str) -> None:
    lines = iter([option, "m", "never"])
    run_menu(lines, Recorder())
    assert list(lines) == ["m", "never"]


@pytest.mark.parametrize("typed", [[], ["m"], ["f"], ["f", "client1"]])
def test_the_end_of_the_input_is_x_wherever_it_comes(typed: list[str]) -> None:
    assert not {"send", "request"} & {kind for kind, *_ in done(*typed)}


def test_an_error_of_an_action_ends_the_menu() -> None:
    class Broken(Recorder):
        def send(self, text: str) -> None:
            raise OSError(text)

    def lines() -> Iterator[str]:
        yield from ("m", "hello", "x")

    with pytest.raises(OSError, match="hello"):
        run_menu(lines(), Broken())
