"""Text that arrives in pieces, wrapped at words while it arrives."""

from __future__ import annotations

import re

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from service.cli.terminal import WIDEST, plain

# A citation mark stays on the line of what it proves.
_PIECES = re.compile(r"\n|[^\S\n]+|\S+(?:[^\S\n]+(?:\[\d+\])+\S*)*")


class Flow:
    """Writes words as soon as they are complete; citation marks such as `[1]` stand out.

    Lines are wrapped on a terminal only: a program that reads the output gets the text as it was sent.
    """

    def __init__(self, console: Console, *, indent: int = 0) -> None:
        self._console = console
        self._indent = " " * indent
        self._width = min(console.width, WIDEST) if console.is_terminal else None
        self._held = ""
        self._column = 0
        self._space = False

    def write(self, piece: str) -> None:
        """Take the next piece; its last word is held until it is known to be whole and what follows it."""
        parts = _PIECES.findall(self._held + plain(piece))
        words = [number for number, part in enumerate(parts) if not part.isspace() and part[0] != "["]
        last = words[-1] if words and "\n" not in parts[words[-1] :] else len(parts)
        self._held = "".join(parts[last:])
        for part in parts[:last]:
            self._put(part)

    def end(self) -> None:
        """Write what is held and end the line."""
        for part in _PIECES.findall(self._held.rstrip()):
            self._put(part)
        self._held = ""
        if self._column:
            self._print("\n")
            self._column = 0

    def _put(self, part: str) -> None:
        if part == "\n":
            self._print("\n")
            self._column, self._space = 0, False
        elif part.isspace():
            self._space = True
        else:
            self._word(part)

    def _word(self, word: str) -> None:
        length = cell_len(word)
        space = " " if self._space and self._column else ""
        if self._width is not None and space and self._column + 1 + length > self._width:
            self._print("\n")
            self._column, space = 0, ""
        if not self._column:
            self._print(self._indent)
            self._column = len(self._indent)
        self._print(space + word)
        self._column += len(space) + length
        self._space = False

    def _print(self, words: str) -> None:
        shown = Text(words)
        shown.highlight_regex(r"\[\d+\]", "cyan")
        self._console.print(shown, end="", soft_wrap=True)
