"""The health mapping as text, JSON or YAML: what ``deploy-code health`` prints and ``DeployCode.health`` hands out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Paint = Callable[[str, str], str]  # text, style → text

_SEVERITIES = {"critical": "bold red", "warning": "yellow", "info": "dim"}
_WORDS = {"healthy": "green", "unhealthy": "bold red"}


def render(data: Mapping[str, Any], format: str) -> str:
    """``format``: text, json or yaml; no line end at the end."""
    if format == "json":
        import json

        return json.dumps(data, indent=2, ensure_ascii=False)
    if format == "yaml":
        import yaml

        return str(yaml.safe_dump(dict(data), sort_keys=False, allow_unicode=True)).rstrip("\n")
    return health_text(data)


def health_text(data: Mapping[str, Any], paint: Paint = lambda text, style: text) -> str:
    """The verdict, then a line for each issue."""
    up = f", up {data['uptime_hours']:g} h" if data["uptime_hours"] else ""
    verdict = paint(data["status"], _WORDS.get(data["status"], "yellow"))
    lines = [f"{verdict}: score {data['score']} of 100{up}"]
    for issue in data["issues"]:
        severity = paint(f"{issue['severity']:<8}", _SEVERITIES.get(issue["severity"], ""))
        who = f"{issue['service']}: " if issue["service"] else ""
        lines.append(f"  {severity}  {who}{issue['message']}")
    return "\n".join(lines)
