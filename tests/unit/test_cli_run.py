"""Signals, hang-ups and closed pipes around an engine of the test's own."""

import os
import signal
import subprocess
import sys
import textwrap

import pytest

PRELUDE = """
import asyncio, sys
from deploy_code import events
from deploy_code.cli.main import run
from deploy_code.cli.options import Options, command
from deploy_code.cli.main import ROOT
from deploy_code.cli.run import run_engine
from deploy_code.errors import DeploymentError
from deploy_code.security.redact import Redactor

class Engine:
    def __init__(self):
        self.bus = events.Bus()
        self.interrupts = 0
        self.interrupted = asyncio.Event()
    def interrupt(self):
        self.interrupts += 1
        self.interrupted.set()
    def begin(self):
        self.bus.publish(events.DeploymentStarted(deployment=1, kind="deploy", services=("api",)))
    def ready(self):
        self.bus.publish(events.WarningRaised(message="ready for signals"))

class App:
    def orchestrator(self):
        return Engine()
    def redactor(self):
        return Redactor()
"""

MAIN = """
@command("status")
def pretend():
    result, ended = run_engine(Options(), App(), act)
    print("result", result, ended.interrupted, flush=True)
    return 130 if ended.interrupted else 0

type(ROOT).get_command = lambda self, ctx, name: pretend
sys.exit(run(["status"]))
"""


@pytest.fixture
def started(tmp_path):
    """Start a script around ``async def act(engine)``; comes back once it said that it is ready for signals."""
    running = []

    def start(act, *, stdout=subprocess.PIPE):
        file = tmp_path / "script.py"
        file.write_text(f"{PRELUDE}\nasync def act(engine):\n{textwrap.indent(textwrap.dedent(act), '    ')}\n{MAIN}")
        process = subprocess.Popen(
            [sys.executable, str(file)], stdout=stdout, stderr=subprocess.PIPE, text=True, process_group=0
        )
        running.append(process)
        seen = ""
        while "ready for signals" not in seen:
            line = process.stderr.readline()
            assert line, seen
            seen += line
        return process

    yield start
    for process in running:
        process.kill()
        process.wait()
        process.stderr.close()
        if process.stdout:
            process.stdout.close()


def end(process):
    stdout, stderr = process.communicate(timeout=20)
    return process.returncode, stdout, stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_ctrl_c_asks_the_engine_and_says_what_happens(started, number):
    process = started("engine.begin(); engine.ready(); await engine.interrupted.wait(); return 'undone'")
    process.send_signal(number)
    code, stdout, stderr = end(process)
    assert (code, stdout) == (130, "result undone True\n")
    assert "undoing what was begun; a second Ctrl-C stops at once" in stderr


def test_the_second_ctrl_c_asks_again_and_its_error_is_told(started):
    process = started(
        """
        engine.begin(); engine.ready()
        while engine.interrupts < 2:
            await engine.interrupted.wait()
            engine.interrupted.clear()
            engine.ready()
        raise DeploymentError("left as it stands", code="E017")
        """
    )
    process.send_signal(signal.SIGINT)
    while "ready for signals" not in process.stderr.readline():
        pass
    process.send_signal(signal.SIGINT)
    code, _, stderr = end(process)
    assert code == 130
    assert "Stopping now." in stderr
    assert "E017 DEPLOYMENT_INTERRUPTED: left as it stands" in stderr


def test_an_engine_that_does_not_answer_is_ended_by_the_third(started):
    process = started(
        """
        engine.begin(); engine.ready()
        while True:
            await engine.interrupted.wait()
            engine.interrupted.clear()
            engine.ready()
        """
    )
    for _ in range(2):
        process.send_signal(signal.SIGINT)
        while "ready for signals" not in process.stderr.readline():
            pass
    process.send_signal(signal.SIGINT)
    assert end(process)[0] == 130


def test_before_anything_was_changed_one_ctrl_c_is_enough(started):
    process = started("engine.ready(); await asyncio.Event().wait()")
    process.send_signal(signal.SIGINT)
    code, _, stderr = end(process)
    assert code == 130
    assert "Interrupted before anything was changed." in stderr
    assert "Traceback" not in stderr


def test_a_hang_up_changes_nothing(started):
    process = started(
        """
        import signal
        asyncio.get_running_loop().call_later(0.2, engine.interrupted.set)
        engine.ready(); await engine.interrupted.wait(); return 'done'
        """
    )
    process.send_signal(signal.SIGHUP)
    assert end(process)[:2] == (0, "result done False\n")


def test_it_goes_on_when_nobody_reads_any_more(started, tmp_path):
    reading, writing = os.pipe()
    proof = tmp_path / "proof"
    process = started(
        f"""
        engine.ready()
        await asyncio.sleep(0.2)
        for _ in range(100):
            engine.ready()
            print("x" * 1000, flush=True)
        open({str(proof)!r}, "w").close()
        raise DeploymentError("it failed all the same")
        """,
        stdout=writing,
    )
    os.close(writing)
    os.close(reading)
    process.stderr.close()
    assert process.wait(timeout=20) == 1
    assert proof.exists()
