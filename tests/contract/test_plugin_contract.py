"""Plugins of both kinds, plain and async, keep what every plugin promises."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import pytest

from deploy_code.events import Event
from deploy_code.orchestrator.report import DeploymentReport
from deploy_code.plugins import AbortDeployment, Plugin
from deploy_code.testing.contracts import PluginContract
from support.pages import names_of


class Journal(Plugin):
    """Keeps a journal in SQLite, which blocks: plain hooks, each in a thread."""

    def __init__(self) -> None:
        self._db = sqlite3.connect(":memory:", check_same_thread=False)
        self._db.execute("CREATE TABLE journal (line TEXT)")

    def _note(self, *words: object) -> None:
        self._db.execute("INSERT INTO journal VALUES (?)", (" ".join(map(str, words)),))

    def lines(self) -> list[str]:
        return [line for (line,) in self._db.execute("SELECT line FROM journal")]

    def on_deployment_start(self, services: Sequence[str]) -> None:
        self._note("start", *services)

    def after_service_rollout(self, service: str, revision: int) -> None:
        self._note("ready", service, revision)

    def on_failure(self, report: Any) -> None:
        self._note("failed", report.service)

    def on_deployment_complete(self, report: Any) -> None:
        self._note("complete", report.status)

    def close(self) -> None:
        self._db.close()


class TestPlainPlugin(PluginContract):
    def setup_method(self) -> None:
        self.made: list[Journal] = []

    def teardown_method(self) -> None:
        for each in self.made:
            each.close()

    def make_plugin(self) -> Plugin:
        self.made.append(Journal())
        return self.made[-1]

    def settled(self, plugin: Plugin, report: DeploymentReport) -> None:
        assert isinstance(plugin, Journal)
        assert plugin.lines() == ["start api db", "ready db 1", "ready api 1", "complete completed"]


class Gatekeeper(Plugin):
    """Refuses what is called "forbidden"; hears everything else."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    async def before_service_rollout(self, service: str, revision: int) -> None:
        await asyncio.sleep(0)
        if service == "forbidden":
            raise AbortDeployment("it is forbidden")

    async def on_event(self, event: Event) -> None:
        self.heard.append(event.text)


class TestAsyncPlugin(PluginContract):
    def make_plugin(self) -> Plugin:
        return Gatekeeper()

    def settled(self, plugin: Plugin, report: DeploymentReport) -> None:
        assert isinstance(plugin, Gatekeeper)
        assert any("api r1" in line for line in plugin.heard)


class Chat(BaseHTTPRequestHandler):
    """Takes every message, and keeps it."""

    texts: ClassVar[list[str]] = []

    def do_POST(self) -> None:
        self.texts.append(json.loads(self.rfile.read(int(self.headers["Content-Length"])))["text"])
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        return None


@pytest.fixture
def chat(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A real server to post to."""
    Chat.texts.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), Chat) as server:
        serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        serving.start()
        monkeypatch.setenv("CHAT_URL", f"http://127.0.0.1:{server.server_port}/")
        yield
        server.shutdown()
        serving.join()


@pytest.mark.usefixtures("chat")
class TestPluginOfTheHowTo(PluginContract):
    def make_plugin(self) -> Plugin:
        made: Plugin = names_of("how-to/plugin.md")["Notify"]()
        return made

    def settled(self, plugin: Plugin, report: DeploymentReport) -> None:
        assert [text.split(" in ")[0] for text in Chat.texts] == ["deployed 2 services"]
