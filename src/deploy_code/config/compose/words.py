"""Commands: a list stays one, text is split into words as a shell would, around the variables in it."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from deploy_code.config.compose.reader import Item, Reader, Text
from deploy_code.config.compose.template import Template, Variable, joined, value_of

_MARK = 0xE000  # of Unicode's private use: stands for a variable while text is split


def words_of(reader: Reader, item: Item | None) -> list[Text] | None:
    """A command: a list as it is, text split as a shell would; None where there is none."""
    if item is None or item.is_null:
        return None
    if not item.is_scalar:
        return reader.texts(item)
    text = reader.text(item)
    return None if text is None else _shell_words(reader, text)


def _shell_words(reader: Reader, text: Text) -> list[Text]:
    held = [part for part in text.parts if isinstance(part, Variable)]
    marks = iter(range(_MARK, _MARK + len(held)))
    marked = "".join(part if isinstance(part, str) else chr(next(marks)) for part in text.parts)
    try:
        words = [text.of(_unmarked(word, held)) for word in shlex.split(marked)]
        values = shlex.split(reader.value(text))
    except ValueError as exc:
        reader.problem(f"cannot be split into words: {exc}", text, "write a list: [program, argument]")
        return []
    if [value_of(word.parts, reader.lookup) for word in words] == values:
        return words
    if reader.holds_secret(text):
        reader.changed("a variable is one word here, whatever it holds", text)
        return words
    reader.freeze(text)
    return [text.of(joined(word)) for word in values]


def _unmarked(word: str, held: list[Variable]) -> Template:
    pieces: Iterator[str | Variable] = (
        held[ord(char) - _MARK] if 0 <= ord(char) - _MARK < len(held) else char for char in word
    )
    return joined(*pieces)
