"""A config as plain data: what a service turns out to be, where it runs, what of it is secret."""

from pathlib import Path

import pytest

from config_kit import load, project, write
from deploy_code.codec import from_data, to_data
from deploy_code.config.resolve import resolve
from deploy_code.model import Condition, Port, Project, Resources
from deploy_code.security.redact import is_secret_name, secret_values


def test_the_type_of_a_service_follows_from_what_it_has(tmp_path: Path) -> None:
    text = """
        services:
          a: {command: x}
          b: {image: "x:1"}
          c: {service_type: custom, command: x}
          d: {service_type: special, command: x}
          e: {service_type: CONTAINER, image: "x:1"}
        """
    config = load(tmp_path, text)
    types = {name: spec.content.service_type for name, spec in resolve(config).services.items()}
    assert types == {"a": "process", "b": "container", "c": "process", "d": "special", "e": "container"}
    assert resolve(config, code_types=["custom"]).services["c"].content.service_type == "custom"


def test_a_whole_service_arrives_in_the_model(tmp_path: Path) -> None:
    text = """
        deployment: {strategy: parallel, max_parallel: 4, timeout_seconds: 60, health_check_interval: 7}
        infrastructure: {network: {port_range: {start: 1000, end: 2000}}}
        hooks: {pre_deploy: [a, b], timeout_seconds: 5}
        plugins: my.plugin:Class
        dry_run: true
        services:
          api:
            command: python
            args: [-m, app]
            user: me:us
            replicas: 3
            resources: {cpu_cores: 1.5, memory_mb: 64}
            ports: [{container_port: 80, host_port: 8080, dynamic: true}]
            volumes: [{name: d, mount_path: data, shared: true}]
            health_check: {endpoint: /health, command: [check], retries: 2, start_period_seconds: 9}
            restart: {policy: on_failure, backoff_seconds: 1, max_exits: 3}
            stop_signal: int
            stop_timeout_seconds: 3
            min_ready_seconds: 2
            exclusive: true
            strategy: sequential
            inherit_env: true
          off: {command: x, enabled: false}
        """
    found = project(tmp_path, text)
    content, policy = found.services["api"].content, found.services["api"].policy
    assert found.disabled == ("off",) and set(found.services) == {"api"}
    assert found.environment == "production" and found.root == str(tmp_path) and found.name == tmp_path.name
    settings = found.settings
    assert (settings.strategy, settings.max_parallel, settings.timeout_seconds) == ("Parallel", 4, 60)
    assert (settings.total_timeout_seconds, settings.port_range, settings.dry_run) == (0, (1000, 2000), True)
    assert (found.hooks.pre_deploy, found.hooks.timeout_seconds, found.plugins) == (
        (("a", "b"),),
        5,
        ("my.plugin:Class",),
    )
    assert (content.command, content.args, content.user, content.inherit_env) == (
        "python",
        ("-m", "app"),
        "me:us",
        True,
    )
    assert content.resources == Resources(cpu_cores=1.5, memory_mb=64)
    assert content.ports == (Port(container_port=80, host_port=8080, dynamic=True),)
    assert content.volumes[0].mount_path == str(tmp_path / "data") and content.volumes[0].shared
    assert (policy.replicas, policy.replicas_in_file, policy.strategy) == (3, True, "Sequential")
    assert (policy.health.endpoint, policy.health.command, policy.health.interval_seconds) == ("/health", ("check",), 7)
    assert (policy.restart.policy, policy.restart.backoff_seconds, policy.restart.max_exits) == ("on-failure", 1, 3)
    assert (policy.stop_signal, policy.stop_timeout_seconds, policy.min_ready_seconds) == ("SIGINT", 3, 2)
    assert policy.exclusive
    assert from_data(Project, to_data(found)) == found


def test_replicas_that_are_not_in_the_file_may_be_scaled(tmp_path: Path) -> None:
    assert not project(tmp_path, "services: {a: {command: x}}").services["a"].policy.replicas_in_file


def test_paths_are_relative_to_the_file_and_not_to_the_caller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    text = """
        services:
          a: {command: ./run.sh, working_dir: sub/../here}
          b: {command: python, working_dir: ~/there}
          c: {command: /bin/true}
          d: {image: "x:1", command: bin/x, working_dir: /app}
        """
    services = project(tmp_path, text, {"HOME": "/home/me"}).services
    assert services["a"].content.command == f"{tmp_path}/run.sh"
    assert services["a"].content.working_dir == f"{tmp_path}/here"
    assert services["b"].content.working_dir == "/home/me/there"
    assert services["c"].content.working_dir == str(tmp_path)
    assert (services["d"].content.command, services["d"].content.working_dir) == ("bin/x", "/app")


@pytest.mark.parametrize(
    ("service", "working_dir", "command"),
    [
        ("{command: python, release: src}", "release:", "python"),
        ("{command: python, release: src, working_dir: src/app}", "release:app", "python"),
        ("{command: ./src/bin/run, release: src}", "release:", "./bin/run"),
        ("{command: ./src/bin/run, release: src, working_dir: src/app}", "release:app", "./../bin/run"),
        ("{command: ./other/run, release: src}", "release:", "{root}/other/run"),
        ("{command: python, release: src, working_dir: other}", "{root}/other", "python"),
        ("{command: python, release: .}", "release:", "python"),
    ],
)
def test_a_release_runs_from_its_copy(tmp_path: Path, service: str, working_dir: str, command: str) -> None:
    content = project(tmp_path, f"services:\n  a: {service}\n").services["a"].content
    assert content.working_dir == working_dir.format(root=tmp_path)
    assert content.command == command.format(root=tmp_path)


def test_a_release_leaves_out_what_is_written_at_run_time(tmp_path: Path) -> None:
    text = """
        infrastructure: {storage: {data_dir: .state, log_dir: /elsewhere}}
        services: {a: {command: x, release: ., volumes: [{name: d, mount_path: data}]}}
        """
    release = project(tmp_path, text).services["a"].content.release
    assert release is not None and release.exclude == (".state", "data")


def test_env_wins_over_env_files_and_later_files_over_earlier_ones(tmp_path: Path) -> None:
    write(tmp_path, "A=1\nB=1\nC=1\n", "one.env")
    write(tmp_path, "B=2\nC=2\nD=${X}\n", "two.env")
    text = "services: {a: {command: x, env_file: [one.env, two.env], env: {C: 3}}}"
    content = project(tmp_path, text, {"X": "y"}).services["a"].content
    assert content.env == {"A": "1", "B": "2", "C": "3", "D": "y"}


def test_depending_on_a_one_shot_means_that_it_has_completed(tmp_path: Path) -> None:
    text = """
        services:
          migrate: {command: x, one_shot: true}
          db: {command: x}
          a: {command: x, dependencies: [migrate, db, {service: db, condition: started}]}
          b: {command: x, dependencies: [{service: migrate, condition: healthy}, {service: db, condition: started}]}
        """
    services = project(tmp_path, text).services
    found = {name: [(d.service, d.condition) for d in services[name].policy.dependencies] for name in "ab"}
    assert found["a"] == [("migrate", Condition.COMPLETED), ("db", Condition.HEALTHY)]
    assert found["b"] == [("migrate", Condition.COMPLETED), ("db", Condition.STARTED)]


def test_the_run_hash_covers_content_and_not_policy(tmp_path: Path) -> None:
    def hashed(service: str, **environ: str) -> str:
        return project(tmp_path, f"services:\n  a: {service}\n", environ).services["a"].run_hash

    same = hashed("{command: x}")
    assert hashed("{command: x, replicas: 3, strategy: Parallel, health_check: {retries: 9}}") == same
    assert hashed("{command: x, env: {A: '1'}}") != same
    assert hashed("{command: x, env: {A: '${V}'}}", V="1") != hashed("{command: x, env: {A: '${V}'}}", V="2")
    assert hashed("{command: x, args: ['${PORT}']}") != same


def test_secrets_are_found_wherever_they_come_from(tmp_path: Path) -> None:
    write(tmp_path, "UNUSED_SECRET=from-dotenv\nPLAIN=no-secret\n", ".env")
    write(tmp_path, "SMTP_PASSWORD=from-env-file\n", "mail.env")
    text = """
        services:
          a:
            command: x
            env_file: mail.env
            args: ["--token=from-args", --password, next-arg, "--header", "x-${DEPLOY_TOKEN}", "http://u:in-url@h"]
            env: {API_KEY: literal, DATABASE_URL: "postgres://u:url%2Dpass@h/d", NOTE: "${PLAIN}", EMPTY_TOKEN: ""}
            health_check: {endpoint: "http://u:in-probe@localhost/"}
          b: {command: x, env: {OTHER_SECRET: only-b}}
        """
    found = project(tmp_path, text, {"DEPLOY_TOKEN": "from-process"})
    a = {"from-env-file", "from-args", "next-arg", "from-process", "in-url", "literal"}
    assert set(found.services["a"].secrets) == a | {"url%2Dpass", "url-pass", "in-probe"}
    assert set(found.services["b"].secrets) == {"only-b"}
    assert set(found.secrets) == set(found.services["a"].secrets) | {"only-b", "from-dotenv"}


@pytest.mark.parametrize(
    "name",
    "PASSWORD DB_PASSWORD PGPASSWORD MYSQL_PWD SMTP_PASS apiKey API_KEY X_APIKEY SECRET JWT_SECRET AUTH_TOKEN"
    " SENTRY_DSN PRIVATE_KEY AWS_ACCESS_KEY_ID CREDENTIALS STRIPE_KEY client-secret passphrase TOKENS".split(),
)
def test_names_that_hold_secrets(name: str) -> None:
    assert is_secret_name(name)


@pytest.mark.parametrize(
    "name",
    "PWD OLDPWD PATH PORT MODE TOKEN_TTL PASSWORD_FILE SECRET_NAME DATABASE_URL KEYBOARD COMPASS HOME".split(),
)
def test_names_that_do_not(name: str) -> None:
    assert not is_secret_name(name)


def test_trivial_values_are_not_worth_hiding() -> None:
    assert secret_values({"A_TOKEN": "", "B_TOKEN": "1", "C_TOKEN": "true", "D_TOKEN": "x7Gq"}) == ("x7Gq",)
