"""Which names and values are secret, decided in one place, so that what one part hides no other part shows.

Secrecy goes by name: nobody marks a secret, but everybody calls it ``…_PASSWORD`` or ``API_KEY``. Names
that only tell where a secret lies or how long it lives (``PASSWORD_FILE``, ``TOKEN_TTL``) are not secret. A
password inside a URL (``postgres://user:pw@host``) is secret whatever the name.

Text is cleaned by value. Two kinds of values are let through on purpose, because hiding them would shred
every line and protect nothing: those under four characters, and the plain words of ``_TRIVIAL`` ("true",
"postgres"). A short value (under eight characters) of letters and digits only is hidden where it stands as
a word of its own, not inside a longer one: the password ``1234`` must not break up ``51234``. Redact before
cutting text short: half a secret is not recognised.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any

_SECRET = re.compile(  # "auth" alone is not here: it is the name of many a service
    r"passw|passphrase|secret|token(?!iz)|api_?key|private_?key|access_?key|signing_?key|encryption_?key|credential|bearer"
    r"|(?:^|_)(?:dsn|pass|pwd|jwt|cookie)$|(?:^|_)dsn_|.pwd$|._key$|._auth$"
)
_HARMLESS = re.compile(
    r"_(?:file|path|dir|url|uri|host|port|ttl|expiry|expires|seconds|minutes|hours|days|timeout|length|size|count"
    r"|limit|enabled|required|type|name|user|username|header|prefix|issuer|audience|version|method|algorithm)$"
    r"|^(?:oldpwd|pwd)$|(?:^|_)max_tokens$|(?:^|_)(?:public|primary|foreign|sort|partition|cache)_key$"
)
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_USERINFO = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s/?#@:]*:([^\s/?#]+)@")
_TRIVIAL = frozenset(
    "true false null none default enabled disabled auto local localhost development staging production test "
    "testing demo example guest user root admin password passwd secret token changeme postgres postgresql "
    "mysql mariadb redis mongodb rabbitmq http https info debug warning error".split()
)
_SHORTEST = 4  # hiding every "1" or "on" would make all output unreadable and protect nothing
_WORD_LIKE = 8  # shorter ones of letters and digits only are hidden as whole words
MARK = "[redacted]"


@lru_cache(maxsize=4096)
def is_secret_name(name: str) -> bool:
    """Does a variable of this name hold a secret? ``apiKey`` does, ``TOKEN_FILE`` does not."""
    folded = _CAMEL.sub("_", name).lower().replace("-", "_").replace(".", "_")
    return bool(_SECRET.search(folded)) and not _HARMLESS.search(folded)


def secret_values(mapping: Mapping[str, str]) -> tuple[str, ...]:
    """The values that no output may show, each once: those under secret names, and passwords inside URLs.

    Values under four characters and plain words such as ``true`` are left out.
    """
    found: dict[str, None] = {}
    for name, value in mapping.items():
        if is_secret_name(name):
            found[value] = None
        if "://" in value:
            found.update(dict.fromkeys(url_passwords(value)))
    return tuple(filter(_worth_hiding, found))


def url_passwords(text: str) -> Iterable[str]:
    """Passwords in the URLs of ``text``, as written and with ``%xx`` resolved."""
    for password in _USERINFO.findall(text):
        yield password
        if "%" in password:
            from urllib.parse import unquote

            yield unquote(password)


def _worth_hiding(value: str) -> bool:
    return len(value) >= _SHORTEST and value.lower() not in _TRIVIAL


class Redactor:
    """Hides known secret values in text and data; grows with ``add``. The rules are those of this module."""

    def __init__(self, values: Iterable[str] = ()) -> None:
        self._forms: dict[str, None] = {}
        self.add(values)

    def add(self, values: Iterable[str]) -> None:
        """From now on hide these too, in every spelling that our output may give them."""
        for value in values:
            if _worth_hiding(value):
                self._forms.update(dict.fromkeys(_spellings(value)))

    def clean(self, text: str) -> str:
        """``text`` with every secret value replaced by ``[redacted]``; overlapping ones by one mark."""
        found = [span for form in self._forms if form in text for span in _spans(form, text)]
        return _masked(text, sorted(found)) if found else text

    def clean_data(self, data: Any, *, names: Collection[str] = ()) -> Any:
        """All texts cleaned, recursively; under a secret-looking key texts and numbers are hidden.

        ``names``: keys that are names of services and say nothing about what is under them.
        """
        if isinstance(data, str):
            return self.clean(data)
        if isinstance(data, Mapping):
            return {self._clean_key(key): self._clean_item(key, item, names) for key, item in data.items()}
        if isinstance(data, list | tuple | set | frozenset):
            return [self.clean_data(item, names=names) for item in data]
        return data

    def _clean_key(self, key: Any) -> Any:
        return self.clean(key) if isinstance(key, str) else key

    def _clean_item(self, key: Any, item: Any, names: Collection[str]) -> Any:
        if isinstance(key, str) and key not in names and is_secret_name(key):
            return self._hidden(item, names)
        return self.clean_data(item, names=names)

    def _hidden(self, item: Any, names: Collection[str]) -> Any:
        if isinstance(item, Mapping):  # a section such as ``tokens:`` whose own keys tell what is secret
            return self.clean_data(item, names=names)
        if isinstance(item, list | tuple | set | frozenset):
            return [self._hidden(each, names) for each in item]
        return item if item is None or isinstance(item, bool) or item == "" else MARK


def _spellings(value: str) -> Iterator[str]:
    """The value as URLs, JSON, YAML, ``repr`` and shells write it; its lines too, as logs come in lines."""
    yield value
    stripped = value.strip()
    if stripped != value and _worth_hiding(stripped):
        yield from _spellings(stripped)
    if "\n" in stripped:
        for line in stripped.splitlines():
            if len(line.strip()) >= _WORD_LIKE:
                yield from _spellings(line.strip())
    if not (value.isascii() and value.replace("-", "").replace("_", "").isalnum()):
        yield from _escaped(value)


def _escaped(value: str) -> Iterator[str]:
    import json
    from urllib.parse import quote, quote_plus

    yield json.dumps(value)[1:-1]
    yield json.dumps(value, ensure_ascii=False)[1:-1]
    yield repr(value)[1:-1]
    yield repr(value + "\"'")[1:-4]  # how it is written when the text around it has both kinds of quotes
    yield value.replace("'", "''")
    yield value.replace("'", "'\"'\"'")
    for quoted in (
        quote(value, safe="", errors="replace"),
        quote(value, errors="replace"),
        quote_plus(value, errors="replace"),
    ):
        yield quoted
        yield _PERCENT.sub(lambda match: match[0].lower(), quoted)


_PERCENT = re.compile("%[0-9A-F]{2}")


def _spans(form: str, text: str) -> Iterator[tuple[int, int]]:
    whole_words = len(form) < _WORD_LIKE and form.isalnum()
    start = text.find(form)
    while start >= 0:
        end = start + len(form)
        if not (whole_words and (text[start - 1 : start].isalnum() or text[end : end + 1].isalnum())):
            yield start, end
        start = text.find(form, start + 1)


def _masked(text: str, spans: Iterable[tuple[int, int]]) -> str:
    parts: list[str] = []
    done = 0
    for start, end in spans:
        if start > done or not parts:
            parts += [text[done:start], MARK]
        done = max(done, end)
    return "".join([*parts, text[done:]])
