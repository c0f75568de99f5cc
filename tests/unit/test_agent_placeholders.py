"""Placeholders that only a start can fill in (CONTRACTS §1, §2)."""

from __future__ import annotations

import pytest

from deploy_code.agent.placeholders import Place, Placeholders, own_values
from deploy_code.errors import DriverError
from deploy_code.model import HealthCheck


def filler(ports: dict[str, int] | None = None, **services: int) -> Placeholders:
    own = own_values(service="api", uuid="u1", revision=7, index=2, ports=ports or {})
    return Placeholders(own, lambda name: Place("127.0.0.1", services.get(name)))


def test_port_is_the_first_port_and_each_has_its_number():
    assert filler({"8080": 30001, "9090": 30002}).fill("${PORT} ${PORT_8080} ${PORT_9090}") == "30001 30001 30002"


def test_a_port_without_a_number_is_only_port():
    values = own_values(service="api", uuid="u", revision=1, index=0, ports={"port": 30005})
    assert values["PORT"] == "30005"
    assert not any(name.startswith("PORT_") for name in values)


def test_what_an_instance_is_told_of_itself():
    text = filler().fill("${DEPLOY_CODE_SERVICE} ${DEPLOY_CODE_INSTANCE} ${DEPLOY_CODE_REVISION} ${DEPLOY_CODE_INDEX}")
    assert text == "api u1 7 2"


def test_other_services_are_found_by_host_and_port():
    fill = filler(db=5432)
    assert fill.fill("postgres://${services.db.host}:${services.db.port}/x") == "postgres://127.0.0.1:5432/x"


def test_service_names_may_hold_dots_and_dashes():
    fill = Placeholders({}, lambda name: Place("127.0.0.1", {"my-db.v2": 1}[name]))
    assert fill.fill("${services.my-db.v2.port}") == "1"


def test_a_service_without_a_port_is_e007_and_worth_another_try():
    with pytest.raises(DriverError) as caught:
        filler().fill("${services.db.port}")
    assert caught.value.code == "E007"
    assert caught.value.retryable
    assert "${services.db.port}" in caught.value.message


def test_a_port_that_was_never_declared_is_an_error():
    with pytest.raises(DriverError, match=r"\$\{PORT_9\} has no value"):
        filler({"8080": 1}).fill("${PORT_9}")


def test_other_text_stays_as_it_is():
    assert filler({"1": 1}).fill("$PORT ${HOME} $${x} ${services.db}") == "$PORT ${HOME} $${x} ${services.db}"


def test_health_checks_env_and_args_are_filled_in():
    fill = filler({"80": 30001})
    check = fill.fill_check(HealthCheck(endpoint="http://localhost:${PORT}/", command=("curl", "${PORT}")))
    assert (check.endpoint, check.command) == ("http://localhost:30001/", ("curl", "30001"))
    assert fill.fill_env({"A": "${PORT}"}) == {"A": "30001"}
    assert fill.fill_all(("-p", "${PORT_80}")) == ("-p", "30001")
