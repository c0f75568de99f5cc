"""No secret survives in what we print, and what is no secret stays readable."""

from __future__ import annotations

import json
import shlex
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from deploy_code.security.redact import MARK, Redactor, is_secret_name, secret_values

SECRET = "s3cr3t-V4lue!"


@pytest.mark.parametrize(
    "name",
    [
        *(
            "DB_PASSWORD",
            "PGPASSWORD",
            "API_KEY",
            "apiKey",
            "JWT_SECRET",
            "SECRET_KEY_BASE",
            "AWS_SECRET_ACCESS_KEY",
        ),
        *(
            "GITHUB_TOKEN",
            "SENTRY_DSN",
            "MYSQL_PWD",
            "REDIS_AUTH",
            "private-key",
            "STRIPE_KEY",
            "credentials",
        ),
    ],
)
def test_names_that_hold_secrets(name):
    assert is_secret_name(name)


@pytest.mark.parametrize(
    "name",
    [
        *(
            "PATH",
            "PWD",
            "OLDPWD",
            "PASSWORD_FILE",
            "TOKEN_TTL",
            "token_expiry_seconds",
            "PUBLIC_KEY",
            "auth",
        ),
        *("MAX_TOKENS", "TOKENIZERS_PARALLELISM", "KEYBOARD", "AUTHOR", "DATABASE_URL", "PORT", "TOKEN_URL"),
    ],
)
def test_names_that_hold_none(name):
    assert not is_secret_name(name)


def test_secret_values_come_by_name_and_out_of_urls():
    env = {
        "DB_PASSWORD": SECRET,
        "DATABASE_URL": "postgres://app:p%40ssw0rd@db:5432/app",
        "CACHE": "redis://:hunter22@cache",
        "HOME_PAGE": "https://example.org/a:b@c",
        "USER": "somebody",
        "FEATURE_TOKEN": "true",
        "SHORT_KEY": "abc",
    }
    assert set(secret_values(env)) == {SECRET, "p%40ssw0rd", "p@ssw0rd", "hunter22"}


def test_a_value_is_hidden_wherever_it_stands():
    assert Redactor([SECRET]).clean(f"a{SECRET}b {SECRET}") == f"a{MARK}b {MARK}"


def test_text_without_secrets_comes_back_as_it_is():
    text = "api r7 #0 ready"
    assert Redactor([SECRET]).clean(text) is text
    assert Redactor().clean(text) is text


def test_the_longer_of_two_secrets_wins():
    assert Redactor(["abcdefgh", "abcdefgh-ijkl"]).clean("x abcdefgh-ijkl y") == f"x {MARK} y"


def test_secrets_that_overlap_leave_no_piece_of_either():
    assert Redactor(["abcdefgh", "efghijkl"]).clean("<abcdefghijkl>") == f"<{MARK}>"


def test_more_secrets_can_become_known():
    redactor = Redactor()
    redactor.add([SECRET])
    assert redactor.clean(SECRET) == MARK


@pytest.mark.parametrize(
    "spell",
    [
        lambda value: quote(value, safe=""),
        lambda value: quote(value, safe="").lower() if value.islower() else quote_plus(value),
        lambda value: json.dumps(value),
        lambda value: json.dumps(value, ensure_ascii=False),
        lambda value: repr(value),
        lambda value: shlex.quote(value),
        lambda value: "'" + value.replace("'", "''") + "'",
    ],
)
@pytest.mark.parametrize("value", ["it's/a b&c", 'quote"d\\back', "päss wörd/1", "tab\tand\nnewline-here"])
def test_a_value_is_hidden_in_every_spelling(spell, value):
    assert Redactor([value]).clean(spell(value)).strip("'\"") == MARK


def test_a_value_is_hidden_in_the_repr_of_text_with_both_kinds_of_quotes():
    assert Redactor(["it's a-b"]).clean(repr('say "it\'s a-b"')) == f"'say \"{MARK}\"'"


def test_a_key_of_many_lines_is_hidden_line_by_line():
    key = "-----BEGIN KEY-----\nMIIEvQIBADANBgkq\nhkiG9w0BAQEFAASC\n-----END KEY-----\n"
    cleaned = [Redactor([key]).clean(f"log: {line}") for line in key.splitlines()]
    assert cleaned == [f"log: {MARK}"] * 4
    assert Redactor([key]).clean(key) == MARK


@pytest.mark.parametrize("value", ["", "abc", "true", "postgres", "localhost"])
def test_values_that_would_shred_all_output_are_let_through(value):
    text = "postgres on localhost: true, abc"
    assert Redactor([value]).clean(text) == text


def test_a_short_plain_value_is_hidden_as_a_word_only():
    assert Redactor(["1234"]).clean("port 51234, PIN=1234, url :1234@") == f"port 51234, PIN={MARK}, url :{MARK}@"


def test_data_is_cleaned_by_value_and_by_key():
    data = {
        "env": {"DB_PASSWORD": "never listed", "PORT": "80", "PIN_TOKEN": 123456, "NO_TOKEN": None},
        "lines": [f"x {SECRET}", 7],
        "api_keys": {"main": "kept by its own key"},
        "TOKENS": ["one", "two"],
        SECRET: True,
    }
    assert Redactor([SECRET]).clean_data(data) == {
        "env": {"DB_PASSWORD": MARK, "PORT": "80", "PIN_TOKEN": MARK, "NO_TOKEN": None},
        "lines": [f"x {MARK}", 7],
        "api_keys": {"main": "kept by its own key"},
        "TOKENS": [MARK, MARK],
        MARK: True,
    }


def test_services_may_be_called_like_secrets():
    data = {"services": {"token-service": "healthy", "auth": "healthy"}}
    assert Redactor().clean_data(data, names={"token-service"}) == data


# No letter of the mark: what is left of text beside a mark can then never look like a secret again.
foreign = st.text(alphabet="fghijklmnopqsuvwxyzABC0123456789 /&'\"\\%ß€\n", min_size=8, max_size=20).filter(str.strip)


@given(
    values=st.lists(foreign, min_size=1, max_size=8),
    pieces=st.lists(st.integers(0, 7), max_size=8),
    glue=foreign,
)
@example(values=["00000000"], pieces=[0, 0], glue="00000000")
def test_no_secret_ever_survives(values, pieces, glue):
    redactor = Redactor(values)
    text = glue.join(values[piece % len(values)] for piece in pieces)
    for shown in (text, json.dumps(text), repr(text), quote(text), quote_plus(text)):
        cleaned = redactor.clean(shown)
        assert not any(value in cleaned for value in values)


@given(data=st.recursive(foreign, lambda inner: st.lists(inner) | st.dictionaries(foreign, inner)), value=foreign)
def test_no_secret_survives_in_data(data, value):
    cleaned = Redactor([value]).clean_data([data, {"a": [value]}])
    assert value not in repr(cleaned)
    assert value not in json.dumps(cleaned, ensure_ascii=False)
