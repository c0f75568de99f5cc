"""Plugins as the API document has them, taken out of its text: against a real server, and from an installed package."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from support.api_document import blocks, section
from support.project import ProjectFolder
from support.scenarios import sleeper

POSTS = """
        import json, urllib.request
        body = json.dumps({"text": message}).encode()
        request = urllib.request.Request(self.webhook_url, body, {"Content-Type": "application/json"})
        await asyncio.to_thread(lambda: urllib.request.urlopen(request, timeout=5).close())
"""
HOOK = "https://hooks.slack.com/..."


class Slack(ThreadingHTTPServer):
    """Keeps what is posted to it."""

    daemon_threads = True

    def __init__(self) -> None:
        self.messages: list[str] = []
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/services/T0/B0"


class _Handler(BaseHTTPRequestHandler):
    server: Slack

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.messages.append(json.loads(body)["text"])
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def slack() -> Iterator[Slack]:
    with Slack() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def document_plugin(url: str) -> str:
    """The document's block; only what it leaves open (``pass``) is filled in, and the address is that of ``url``."""
    [text] = blocks(section("Plugin System", 3), "python")
    assert text.count("        pass\n") == 1 and HOOK in text
    return text.replace("        pass\n", POSTS).replace(HOOK, url)


def run(project: ProjectFolder, text: str) -> str:
    path = project.program("program.py", f"from deploy_code import DeployCode\n{text}")
    done = subprocess.run(
        [sys.executable, "-W", "error", str(path)],
        cwd=project.folder,
        env={**os.environ, **project.env},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_slack_plugin_of_the_document_posts_to_a_real_server(project: ProjectFolder, slack: Slack) -> None:
    project.write({"a": sleeper(), "b": sleeper()})
    run(project, document_plugin(slack.url) + "\nasyncio.run(deployer.deploy())\n")
    assert slack.messages == ["Starting deployment of 2 services", "✅ Deployment successful! Deployed 2 services"]


def test_the_slack_plugin_of_the_document_tells_of_a_failure(project: ProjectFolder, slack: Slack) -> None:
    project.write({"a": {"command": "sh", "args": ["-c", "exit 7"]}})
    run(project, document_plugin(slack.url) + "\nasyncio.run(deployer.deploy())\n")
    start, end = slack.messages
    assert start == "Starting deployment of 1 services" and end.startswith("❌ Deployment failed! Errors: ['E005")


def test_a_slack_that_is_down_costs_nothing_but_a_warning(project: ProjectFolder) -> None:
    project.write({"a": sleeper()})
    dead = document_plugin("http://127.0.0.1:9/nobody")
    said = run(project, dead + "\nreport = asyncio.run(deployer.deploy())\nprint(report.success, report.warnings)\n")
    assert said.startswith("True") and "plugin SlackNotificationPlugin.on_deployment_start failed: URLError" in said


def test_the_monitored_class_of_the_document_counts_deployments(project: ProjectFolder) -> None:
    pytest.importorskip("prometheus_client", reason="the document's example imports it")
    [text] = blocks(section("Adding Custom Monitoring", 3), "python")
    project.write({"a": sleeper()})
    said = run(
        project,
        text + "import asyncio\ndeployer = MonitoredDeployCode('deploy-code.yaml')\n"
        "print(asyncio.run(deployer.deploy()).success)\n"
        "print(prometheus_client.generate_latest().decode())\n",
    )
    assert said.startswith("True") and "deployments_total 1.0" in said
    assert "deployment_duration_seconds_count 1.0" in said


def test_a_package_offers_its_plugin_to_every_project(project: ProjectFolder, slack: Slack) -> None:
    site = project.folder / "site"
    info = site / "shop_slack-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: shop-slack\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[deploy_code.plugins]\nslack = shop_slack:Ours\n")
    text = document_plugin(slack.url).split("# Use plugin")[0]
    ours = f"class Ours(SlackNotificationPlugin):\n    def __init__(self): super().__init__({slack.url!r})\n"
    (site / "shop_slack.py").write_text(text + ours)
    project.write({"a": sleeper()})
    done = project.cli("deploy", env={"PYTHONPATH": str(site)}).ok()
    assert len(slack.messages) == 2, done
    (site / "shop_slack.py").write_text("import nothing_of_that_name\n")
    done = project.cli("deploy", env={"PYTHONPATH": str(site)})
    assert done.code == 2 and "entry point slack of distribution shop-slack" in done.stderr, done
    project.cli("stop", env={"PYTHONPATH": str(site)}).ok()
