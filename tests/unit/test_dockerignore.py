"""What a .dockerignore leaves out: Docker's documented rules, and what holds for any file."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy_code.config.dockerignore import Ignore

SEGMENT = st.text("ab.c", min_size=1, max_size=3).filter(lambda text: text.strip(".") != "")
PATHS = st.lists(SEGMENT, min_size=1, max_size=4).map("/".join)

# (file, path, left out) as https://docs.docker.com/build/concepts/context/#dockerignore-files says it
DOCUMENTED = [
    ("# comment\n", "comment", False),
    ("*/temp*", "somedir/temporary.txt", True),
    ("*/temp*", "somedir/temp", True),
    ("*/temp*", "temporary.txt", False),
    ("*/temp*", "a/b/temp", False),
    ("*/*/temp*", "somedir/subdir/temporary.txt", True),
    ("*/*/temp*", "somedir/temporary.txt", False),
    ("temp?", "tempa", True),
    ("temp?", "temp", False),
    ("temp?", "tempab", False),
    ("**/*.go", "main.go", True),
    ("**/*.go", "a/b/main.go", True),
    ("**/*.go", "a/b/main.goo", False),
    ("*.md\n!README.md", "README.md", False),
    ("*.md\n!README.md", "OTHER.md", True),
    ("*.md\n!README*.md\nREADME-secret.md", "README-secret.md", True),
    ("*.md\n!README*.md\nREADME-secret.md", "README-x.md", False),
    ("*.md\nREADME-secret.md\n!README*.md", "README-secret.md", False),
    ("/foo/bar", "foo/bar", True),
    ("foo/bar/", "foo/bar", True),
    ("foo/../bar", "bar", True),
    ("*", "a/b", True),
    ("*\n!src", "src/a.c", False),
    ("*\n!src", "other", True),
    ("dir", "dir/below/it", True),
    ("a/**", "a/b/c", True),
    ("a/**", "a", False),
    ("a/**/z", "a/z", True),
    ("a/**/z", "a/b/c/z", True),
    ("[ab].txt", "a.txt", True),
    ("[^ab].txt", "a.txt", False),
    ("[^ab].txt", "c.txt", True),
    (r"\*.txt", "*.txt", True),
    (r"\*.txt", "a.txt", False),
    ("a.c", "abc", False),
    ("a+(b)", "a+(b)", True),
    ("\ufeffdir", "dir", True),
    ("  dir  ", "dir", True),
    ("", "anything", False),
    ("#dir\n#", "dir", False),
]


@pytest.mark.parametrize(("text", "path", "left_out"), DOCUMENTED)
def test_the_documented_rules_hold(text, path, left_out):
    assert Ignore(text).leaves_out(path) is left_out


@given(PATHS, PATHS)
def test_what_is_below_a_folder_that_is_left_out_is_left_out_too(folder, below):
    ignore = Ignore(folder)
    assert ignore.leaves_out(f"{folder}/{below}")
    assert ignore.leaves_out_all_below(folder)


@given(PATHS, st.lists(PATHS, max_size=4))
def test_what_is_taken_back_last_stays(path, others):
    ignore = Ignore("\n".join([*others, "**", f"!{path}"]))
    assert not ignore.leaves_out(path)
    assert not ignore.leaves_out_all_below(path.split("/")[0])


@given(PATHS)
def test_no_rule_leaves_nothing_out(path):
    assert not Ignore("\n\n# nothing\n   \n").leaves_out(path)


@given(st.text(max_size=30), PATHS)
def test_whatever_is_written_is_read_or_refused_in_words(text, path):
    try:
        ignore = Ignore(text)
    except ValueError as error:
        assert str(error)
    else:
        assert ignore.leaves_out(path) in (True, False)


@pytest.mark.parametrize("text", ["!", "a[", "[z-a]"])
def test_a_pattern_that_makes_no_sense_is_named(text):
    with pytest.raises(ValueError, match=r"alone takes nothing back|is no pattern"):
        Ignore(text)
