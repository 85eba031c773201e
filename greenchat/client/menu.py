"""The menu: which lines are shown, and which answers mean what."""

from collections.abc import Callable, Iterator
from typing import Final, Protocol

__all__ = ["GOODBYE", "NO_SUCH_OPTION", "Actions", "run_menu"]

MENU: Final = """\
Enter an option ('m', 'f', 'x'):
  (M)essage (send)
  (F)ile (request)
 e(X)it"""

NO_SUCH_OPTION: Final = "no such option: type m, f or x, then Enter"

GOODBYE: Final = "closing your sockets...goodbye"


class Actions(Protocol):
    """What the menu can have done."""

    def show(self, line: str) -> None:
        """Write *line* where the menu is."""

    def send(self, text: str) -> None:
        """Say *text* to everyone."""

    def request(self, owner: str, file: str) -> None:
        """Fetch *owner*'s *file*, without waiting for it."""

    def answer(self, *, yes: bool) -> None:
        """Say whether somebody who asks for files may have them."""

    def hint(self, line: str) -> None:
        """Tell the user, beside the menu, of a mistake."""


def run_menu(lines: Iterator[str], actions: Actions) -> None:
    """Offer the menu and do what is chosen, until the user leaves or *lines*, the user's input, ends."""

    def ask(question: str) -> str:
        actions.show(question)
        return next(lines)

    choices: dict[str, Callable[[], None]] = {
        "m": lambda: actions.send(ask("Enter your message:")),
        "y": lambda: actions.answer(yes=True),
        "n": lambda: actions.answer(yes=False),
        "f": lambda: actions.request(ask("Who owns the file?"), ask("Which file do you want?")),
    }
    try:
        while (option := ask(MENU).strip().lower()) != "x":
            choices.get(option, lambda: actions.hint(NO_SUCH_OPTION))()
    except StopIteration:
        return  # the end of the input means x, even in the middle of a command
