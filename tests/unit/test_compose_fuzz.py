"""Whatever a Compose file holds, importing it gives a file that loads or an E002, never a fault of our own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deploy_code.errors import ConfigError
from support.compose_kit import NAMES, SAMPLES, VARIABLES, ComposeFolder

SERVICE_KEYS = (
    "image build command entrypoint environment env_file ports expose volumes tmpfs secrets configs depends_on links"
    " healthcheck deploy restart stop_signal stop_grace_period user read_only cap_add extra_hosts dns network_mode"
    " networks labels logging shm_size profiles extends scale mem_limit cpus pids_limit gpus pull_policy x-a nonsense"
).split()
TOP_KEYS = "services volumes networks secrets configs name version include x-a".split()
DETAIL_KEYS = (
    "test interval disable retries condition required source target type tmpfs size file external context args path"
    " resources limits reservations devices cpus memory ipam config subnet published protocol host_ip driver options"
    " restart_policy max_attempts replicas service aliases a web db"
).split()
WORDS = (
    "|a|80|80:80|1-2:3-4|${X}|$X|${X:-1}|${X:?e}|$$|${|$1|1m|1m30s|./a:/b:ro|a:/b|/b|~|A=1|NONE|on-failure:3|service:a"
    "|host|web|db|'|a 'b|é\u2028|-1|."
)
TEXT = st.sampled_from(WORDS.split("|"))
LEAF = TEXT | st.none() | st.booleans() | st.integers(-1, 70000) | st.floats(allow_nan=True)
DETAIL = st.recursive(
    LEAF,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(DETAIL_KEYS), inner, max_size=3),
    max_leaves=6,
)
SERVICE = st.dictionaries(st.sampled_from(SERVICE_KEYS), DETAIL, max_size=4).map(lambda found: {"image": "a", **found})
FILE = st.dictionaries(st.sampled_from(TOP_KEYS), DETAIL, max_size=2).flatmap(
    lambda top: st.dictionaries(st.sampled_from(["web", "db", "-x"]), SERVICE | DETAIL, min_size=1, max_size=3).map(
        lambda services: {**top, "services": services}
    )
)
BROAD = settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


def survives(folder: ComposeFolder, text: str, *more: str) -> None:
    try:
        done = folder.imported(folder.write(text), *(folder.write(each, "over.yml") for each in more))
    except ConfigError as exc:
        assert exc.code in ("E001", "E002")
        assert all(problem.file for problem in exc.problems), exc
    else:
        folder.exported(done.text)


@BROAD
@given(FILE)
def test_any_mapping_is_read_or_refused(tmp_path: Path, document: dict[str, Any]) -> None:
    survives(ComposeFolder(tmp_path), yaml.safe_dump(document))


@BROAD
@given(FILE, FILE)
def test_any_two_files_are_merged_or_refused(tmp_path: Path, one: dict[str, Any], two: dict[str, Any]) -> None:
    survives(ComposeFolder(tmp_path), yaml.safe_dump(one), yaml.safe_dump(two))


@BROAD
@given(st.sampled_from(NAMES), st.data())
def test_a_sample_with_a_line_missing_doubled_or_moved_is_read_or_refused(
    tmp_path: Path, name: str, data: st.DataObject
) -> None:
    lines = (SAMPLES / f"{name}.yml").read_text().splitlines(keepends=True)
    index = data.draw(st.integers(0, len(lines) - 1))
    change = data.draw(st.sampled_from(["", lines[index] * 2, f"  {lines[index]}", lines[index].replace(":", "", 1)]))
    survives(ComposeFolder(tmp_path, **VARIABLES), "".join([*lines[:index], change, *lines[index + 1 :]]))
