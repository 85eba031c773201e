"""The menu: which lines are shown, and which answers mean what."""

import re
from collections.abc import Callable, Iterator
from typing import Final, Protocol

__all__ = ["GOODBYE", "NO_SUCH_OPTION", "Actions", "run_menu"]

MENU: Final = """\
Enter an option ('m', 'f', 'x'):
  (M)essage (send)
  (F)ile (request)
 e(X)it"""

NO_SUCH_OPTION: Final = "no such option: type m, f or x, then Enter; ? shows what else there is"

_TO_LEAVE: Final = "to leave, type x, then Enter"

_ANSWER: Final = re.compile(r"([yn])\s*([0-9]{1,9})")

_WHICH: Final = "type the number of the question too, as in y 1"

GOODBYE: Final = "closing your sockets...goodbye"


class Actions(Protocol):
    """What the menu can have done."""

    def show(self, line: str) -> None:
        """Write *line* where the menu is."""

    def send(self, text: str) -> None:
        """Say *text* to everyone."""

    def request(self, owner: str, file: str) -> None:
        """Fetch *owner*'s *file*, without waiting for it."""

    def answer(self, number: int, *, yes: bool) -> None:
        """Answer the question with this *number*: whether somebody may fetch files."""

    def hint(self, line: str) -> None:
        """Tell the user something beside the menu."""

    def reject(self, line: str) -> None:
        """Tell the user of a mistake in the input."""

    def help(self) -> None:
        """Show what can be typed, and what was asked."""

    def pause(self) -> None:
        """Show nothing that can wait: the user is answering a prompt."""

    def resume(self) -> None:
        """Show what has waited: the menu is there again."""


def run_menu(lines: Iterator[str], actions: Actions) -> bool:
    """Offer the menu and do what is chosen, until the user leaves, or *lines*, the input, ends. Return True if by x."""

    def ask(prompt: str) -> str:
        actions.show(prompt)
        return next(lines)

    def message() -> None:
        if text := ask("Enter your message:"):
            actions.send(text)

    def file() -> None:
        if (owner := ask("Who owns the file?").strip()) and (name := ask("Which file do you want?")):
            actions.request(owner, name)

    choices: dict[str, Callable[[], None]] = {
        "": lambda: None,
        "m": message,
        "f": file,
        "y": lambda: actions.reject(_WHICH),
        "n": lambda: actions.reject(_WHICH),
        "q": lambda: actions.reject(_TO_LEAVE),
        "quit": lambda: actions.reject(_TO_LEAVE),
        "exit": lambda: actions.reject(_TO_LEAVE),
        "?": actions.help,
        "help": actions.help,
    }
    try:
        while True:
            actions.show(MENU)
            actions.resume()
            option = next(lines).strip().lower()
            actions.pause()
            if option == "x":
                return True
            if answer := _ANSWER.fullmatch(option):
                actions.answer(int(answer[2]), yes=answer[1] == "y")
            else:
                choices.get(option, lambda: actions.reject(NO_SUCH_OPTION))()
    except StopIteration:  # the end of the input ends the program, even in the middle of a command
        return False
