"""Small values and shortcuts for tests of the state."""

from __future__ import annotations

from deploy_code.model import Content, HealthCheck, Policy, ServiceSpec
from deploy_code.state.rows import MapEntry, NewDeployment
from deploy_code.state.store import policy_digest

ABOUT = {"name": "shop", "file": "/srv/shop.yaml", "environment": "staging", "log_dir": "/var/log/shop"}


def service(name="api", *, version="1", replicas=1, secrets=()):
    content = Content(command="python3", args=("app.py",), env={"VERSION": version})
    policy = Policy(replicas=replicas, health=HealthCheck(endpoint="/health"))
    return ServiceSpec(name=name, content=content, policy=policy, secrets=tuple(secrets))


def entry(spec, revision=1, **changes):
    return MapEntry(revision, policy_digest(spec.policy), spec.policy.replicas)._replace(**changes)


def begin(store, *specs, revision=1, before=None, kind="deploy"):
    return store.begin_deployment(
        NewDeployment(
            kind=kind,
            who="me@here pid 1",
            before=store.current_map() if before is None else before,
            after={spec.name: entry(spec, revision) for spec in specs},
            services=tuple(spec.name for spec in specs),
            revisions=[(revision, spec) for spec in specs],
            policies=[spec.policy for spec in specs],
        )
    )


def finish(store, number, status="completed", good=True, **more):
    store.finish_deployment(number, status=status, good=good, report={"n": number}, **more)
