"""Image references: what people write, read as engines and registries read it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy_code.drivers.engine.reference import Reference, is_image_id, parse_reference
from deploy_code.errors import ServiceError

SHA = "sha256:" + "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("text", "whole", "familiar"),
    [
        ("redis", "docker.io/library/redis:latest", "redis:latest"),
        ("redis:7-alpine", "docker.io/library/redis:7-alpine", "redis:7-alpine"),
        ("grafana/grafana:10.1", "docker.io/grafana/grafana:10.1", "grafana/grafana:10.1"),
        ("docker.io/redis", "docker.io/library/redis:latest", "redis:latest"),
        ("index.docker.io/library/redis:7", "docker.io/library/redis:7", "redis:7"),
        ("ghcr.io/org/team/app:1.4", "ghcr.io/org/team/app:1.4", "ghcr.io/org/team/app:1.4"),
        ("localhost/app", "localhost/app:latest", "localhost/app:latest"),
        ("localhost:5000/app", "localhost:5000/app:latest", "localhost:5000/app:latest"),
        ("[::1]:5000/app:1", "[::1]:5000/app:1", "[::1]:5000/app:1"),
        ("127.0.0.1:5000/a__b/c-d.e:v_1", "127.0.0.1:5000/a__b/c-d.e:v_1", "127.0.0.1:5000/a__b/c-d.e:v_1"),
        (f"redis@{SHA}", f"docker.io/library/redis@{SHA}", f"redis@{SHA}"),
        (f"redis:7@{SHA}", f"docker.io/library/redis:7@{SHA}", f"redis:7@{SHA}"),
        ("localhost", "docker.io/library/localhost:latest", "localhost:latest"),
        ("docker.io/a.b/c", "docker.io/a.b/c:latest", "docker.io/a.b/c:latest"),
        ("docker.io/library/a/b", "docker.io/library/a/b:latest", "library/a/b:latest"),
    ],
)
def test_a_name_stands_for_a_registry_a_repository_and_a_version(text: str, whole: str, familiar: str) -> None:
    reference = parse_reference(text)
    assert str(reference) == whole
    assert reference.familiar == familiar


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "it is empty"),
        (" redis", "begins or ends with a space"),
        ("Redis", "lower case"),
        ("grafana/Grafana:10", "lower case"),
        ("redis:", "form"),
        ("redis:-1", "form"),
        ("redis:" + "a" * 129, "form"),
        ("a//b", "form"),
        ("a/-b", "form"),
        ("a___b", "form"),
        ("-a.io/b", "no name of a registry"),
        ("redis@sha256:abc", "form"),
        ("redis@sha256:" + "a" * 63, "64 hex digits"),
        ("redis@sha256:" + "A" * 64, "lower case"),
        ("0123456789abcdef" * 4, "an ID and no name"),
        ("a" * 250, "longer than 255"),
        ("redis\nX: y", "form"),
    ],
)
def test_what_is_no_reference_is_refused_with_the_reason(text: str, why: str) -> None:
    with pytest.raises(ServiceError) as caught:
        parse_reference(text)
    assert caught.value.code == "S003"
    assert why in str(caught.value)
    assert repr(text) in str(caught.value)


def test_the_id_of_an_image_is_told_from_a_name() -> None:
    assert is_image_id(SHA)
    assert is_image_id(SHA.removeprefix("sha256:"))
    assert not is_image_id("redis:7")
    assert not is_image_id(SHA[:-1])


LOWER = "abcdefghijklmnopqrstuvwxyz0123456789"
WORD = st.text(LOWER, min_size=1, max_size=6)
PART = st.builds(
    lambda head, rest: head + "".join(f"{separator}{word}" for separator, word in rest),
    WORD,
    st.lists(st.tuples(st.sampled_from([".", "_", "__", "-", "--", "---"]), WORD), max_size=2),
)
PATH = st.lists(PART, min_size=1, max_size=4).map("/".join)
DOMAIN = st.builds(
    lambda names, port: ".".join(names) + (f":{port}" if port else ""),
    st.lists(WORD, min_size=2, max_size=3),
    st.integers(0, 65535),
) | st.sampled_from(["localhost", "localhost:5000", "docker.io", "[2001:db8::1]:443"])
TAG = st.text(LOWER + "ABC_", min_size=1, max_size=5).flatmap(
    lambda head: st.text(LOWER + "._-", max_size=10).map(lambda rest: head + rest)
)
DIGEST = st.text("0123456789abcdef", min_size=64, max_size=64).map("sha256:{}".format)


@given(DOMAIN, PATH, st.one_of(st.just(""), TAG), st.one_of(st.just(""), DIGEST))
def test_every_reference_of_the_grammar_is_read_and_both_its_names_mean_the_same(
    domain: str, path: str, tag: str, digest: str
) -> None:
    text = f"{domain}/{path}" + (f":{tag}" if tag else "") + (f"@{digest}" if digest else "")
    reference = parse_reference(text)
    assert reference.domain == domain
    assert reference.tag == (tag or ("" if digest else "latest"))
    assert reference.digest == digest
    assert parse_reference(str(reference)) == reference
    assert parse_reference(reference.familiar) == reference


@given(st.text(max_size=40) | st.text(LOWER + "/:@.-_", max_size=40))
def test_any_text_is_a_reference_or_a_clear_error(text: str) -> None:
    try:
        reference = parse_reference(text)
    except ServiceError as error:
        assert error.code == "S003"
    else:
        assert isinstance(reference, Reference)
        assert parse_reference(str(reference)) == reference
