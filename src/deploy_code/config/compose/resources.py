"""``deploy:`` and the older keys for limits, replicas and restarts.

A limit of Compose is a limit here too, and is set aside for the instance besides. A reservation alone would become a
limit that nobody asked for, so it is dropped.
"""

from __future__ import annotations

from typing import Any

from deploy_code.config.compose import amounts
from deploy_code.config.compose.reader import Item, Reader
from deploy_code.config.write import AsWritten

_RESTARTS = {"no": "never", "none": "never", "always": "always", "any": "always", "unless-stopped": "always"}
_DEPLOY_DROPPED = {
    "update_config": "how services are replaced is deployment.strategy's and min_ready_seconds' business",
    "rollback_config": "a rollback puts everything back at once",
    "placement": "there is one machine",
    "endpoint_mode": "there is one machine",
    "labels": "of a Swarm service; those of containers are labels:",
}
_MODES = ("replicated", "global", "replicated-job", "global-job")


def resources_of(reader: Reader, service: dict[str, Item]) -> dict[str, Any]:
    """What one instance may use. Newer keys, below ``deploy``, win over older ones."""
    sections = reader.entries(reader.entries(service.get("deploy")).get("resources"))
    limits, reserved = reader.entries(sections.get("limits")), reader.entries(sections.get("reservations"))
    cores = _cores(reader, limits.get("cpus") or service.get("cpus")) or _quota(reader, service)
    memory = reader.megabytes(limits.get("memory") or service.get("mem_limit"))
    pids = _count(reader, limits.get("pids") or service.get("pids_limit"))
    gpus = _gpus(reader, reserved.get("devices"), service.get("gpus"))
    _reservations(reader, {"memory": service.get("mem_reservation"), **reserved}, limits)
    found = {"cpu_cores": cores, "memory_mb": memory, "gpu_count": gpus, "pids": pids}
    return {key: value for key, value in found.items() if value}


def _reservations(reader: Reader, reserved: dict[str, Item | None], limits: dict[str, Item]) -> None:
    for key, item in reserved.items():
        if key == "devices" or item is None:
            continue
        if key in limits:
            reader.changed("what is set aside is the limit", item)
        else:
            reader.dropped("a reservation would be a limit too; write resources if it may be one", item)


def _cores(reader: Reader, item: Item | None) -> float | int | None:
    found = reader.amount(item, float, "a number of cores")
    if found is None:
        return None
    if not 0 <= found < 1e9:
        assert item is not None
        reader.problem("must be a number of cores", item)
        return None
    return int(found) if found == int(found) else found


def _quota(reader: Reader, service: dict[str, Item]) -> float | None:
    """``cpu_quota`` microseconds of each ``cpu_period``."""
    quota = reader.amount(service.get("cpu_quota"), _microseconds, "a number of microseconds")
    if not quota:
        return None
    period = reader.amount(service.get("cpu_period"), _microseconds, "a number of microseconds")
    return round(quota / (period or 100_000), 3)


def _microseconds(text: str) -> int:
    return int(text) if text.isdecimal() else int(amounts.seconds(text) * 1_000_000)


def _count(reader: Reader, item: Item | None) -> int | AsWritten | None:
    text = reader.text(item)
    if text is None or reader.value(text) in ("-1", "0"):
        return None
    return reader.number(text)


def _gpus(reader: Reader, devices: Item | None, gpus: Item | None) -> int:
    if gpus is not None and gpus.is_scalar:
        return _wanted(reader, gpus)
    count = 0
    for device in (*reader.items(devices), *reader.items(gpus)):
        keys = reader.entries(device)
        wanted = {reader.value(each) for each in reader.texts(keys.get("capabilities"))}
        if wanted - {"gpu", "nvidia", "compute", "utility"} or (not wanted and devices is not None):
            reader.dropped("only GPUs can be asked for", device)
        elif "device_ids" in keys:
            ids = reader.items(keys["device_ids"])
            reader.changed(f"{len(ids)} of the GPUs, whichever are free", keys["device_ids"])
            count += len(ids)
        else:
            count += _wanted(reader, keys.get("count") or device)
    return count


def _wanted(reader: Reader, item: Item) -> int:
    """A number, or ``all``, which is not a number that could be set aside."""
    text = reader.text(item) if item.is_scalar else None
    if text is None or reader.value(text) in ("all", "-1"):
        reader.changed("one GPU, not all: write how many in resources.gpu_count", item)
        return 1
    number = reader.number(text, low=1)
    return int(number) if isinstance(number, int) else 1


# --------------------------------------------------------------------------- replicas and restarts


def replicas_of(reader: Reader, service: dict[str, Item]) -> int | AsWritten | None:
    """How many instances; None where the file does not say."""
    deploy = reader.entries(service.get("deploy"))
    if reader.one_of(deploy.get("mode"), _MODES, "replicated") != "replicated":
        reader.dropped("say how many with replicas", deploy["mode"])
    for key in deploy.keys() & _DEPLOY_DROPPED.keys():
        reader.dropped(_DEPLOY_DROPPED[key], deploy[key])
    text = reader.text(service.get("scale") or deploy.get("replicas"))
    return None if text is None else reader.number(text)


def restart_of(reader: Reader, service: dict[str, Item]) -> str | dict[str, Any]:
    """Compose restarts nothing by itself, we do: so it is always written."""
    policy = reader.entries(service.get("deploy")).get("restart_policy")
    if policy is not None:
        return _restart_policy(reader, policy)
    item = service.get("restart")
    text = reader.text(item)
    if item is None or text is None:
        return "never"
    value = reader.fixed(text)
    if value in ("false", "False"):
        value = "no"  # YAML of old takes an unquoted no for false
    name, _, most = value.partition(":")
    if name == "on-failure" and (not most or most.isdecimal()):
        return _on_failure(reader, item, int(most or 0))
    if value not in _RESTARTS:
        reader.problem(f"'{value}' is no restart policy", text, "write no, always, on-failure or unless-stopped")
    return _RESTARTS.get(value, "never")


def _on_failure(reader: Reader, item: Item, most: int) -> str | dict[str, Any]:
    if not most:
        return "on-failure"
    reader.changed(f"after {most} restarts in five minutes it has failed, and is tried again five minutes later", item)
    return {"policy": "on-failure", "max_exits": most + 1}


def _restart_policy(reader: Reader, item: Item) -> str | dict[str, Any]:
    keys = reader.entries(item)
    condition = reader.one_of(keys.get("condition"), ("none", "on-failure", "any"), "any")
    found: dict[str, Any] = {"policy": _RESTARTS.get(condition, condition)}
    delay = reader.seconds(keys.get("delay"))
    if delay:
        found["backoff_seconds"] = delay
        if delay > 60:
            found["backoff_max_seconds"] = delay
    most = reader.text(keys.get("max_attempts"))
    number = None if most is None else reader.number(most)
    if isinstance(number, int) and number:
        found |= _limited(reader, keys["max_attempts"], number)
    window = reader.seconds(keys.get("window"))
    if window:
        found["reset_after_seconds"] = window
    return str(found["policy"]) if len(found) == 1 else found


def _limited(reader: Reader, item: Item, most: int) -> dict[str, Any]:
    _on_failure(reader, item, most)
    return {"max_exits": most + 1}
