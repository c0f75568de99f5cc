"""The live table in a real pseudo-terminal, read back as a terminal would show it."""

import sys
import textwrap

import pexpect
import pyte
import pytest

PRELUDE = """
import asyncio, sys
from deploy_code import events as e
from deploy_code.cli.live import LiveView, choose_view
from deploy_code.cli.options import Options

options = Options()
async def main():
    view = choose_view(options, lambda text: text.replace("hunter2", "***"))
    assert isinstance(view, LiveView)
    with view:
        await script(view)
def start(view, service, text="start"):
    step = f"{text} {service} r1"
    view.listen(e.StepStarted(deployment=7, service=service, step=step, cause="new in the file"))
def end(view, service, error=""):
    view.listen(e.StepFinished(deployment=7, service=service, step=f"start {service} r1", error=error))
def see(view, service, phase, detail=""):
    name = f"{service} r1 #0"
    view.listen(e.InstanceChanged(deployment=7, service=service, instance=name, phase=phase, detail=detail))
"""


@pytest.fixture
def screen(tmp_path):
    """Run a script in a terminal of a given size; what the screen shows at its end."""

    def play(script, columns=80, rows=24, env=None, raw=False):
        file = tmp_path / "script.py"
        body = textwrap.indent(textwrap.dedent(script), "    ")
        file.write_text(f"{PRELUDE}\nasync def script(view):\n{body}\nasyncio.run(main())\n")
        import os

        child = pexpect.spawn(
            sys.executable,
            [str(file)],
            dimensions=(rows, columns),
            env={**os.environ, "TERM": "xterm-256color", **(env or {})},
            timeout=30,
            encoding="utf-8",
        )
        text = child.read()
        child.close()
        terminal = pyte.Screen(columns, rows)
        pyte.Stream(terminal).feed(text)
        assert child.exitstatus == 0, text
        return text if raw else [line.rstrip() for line in terminal.display]

    return play


SMALL = """
view.listen(e.DeploymentStarted(deployment=7, kind="deploy", services=("db", "api", "web")))
view.listen(e.PhaseCompleted(deployment=7, phase="storage"))
start(view, "db"); see(view, "db", "ready"); end(view, "db")
start(view, "api"); see(view, "api", "starting")
await asyncio.sleep(0.3)
"""


def test_one_row_a_service_with_state_health_time_and_cause(screen):
    shown = screen(SMALL)
    assert shown[0].startswith("deploy 7  1/3 services")
    assert shown[0].endswith("services")
    assert shown[1].split()[:4] == ["✓", "db", "ready", "healthy"]
    assert shown[2].split()[:4] == ["•", "api", "starting", "starting"]
    assert shown[2].endswith("new in the file")
    assert shown[3].split() == ["web", "waiting"]


def test_the_picture_is_painted_over_not_below(screen):
    shown = screen(SMALL + "\nawait asyncio.sleep(0.5)")
    assert sum(line.startswith("deploy 7") for line in shown) == 1


def test_text_of_strangers_is_shown_not_obeyed(screen):
    shown = screen(
        SMALL + 'see(view, "api", "exited", "[bold red]x[/] \\x1b[2J hunter2 :smile:")\nawait asyncio.sleep(0.2)'
    )
    assert "[bold red]x[/] \\x1b[2J *** :smile:" in shown[2]


def test_two_hundred_services_fit_a_small_terminal(screen):
    shown = screen(
        """
        names = [f"service-{n:03}" for n in range(200)]
        view.listen(e.DeploymentStarted(deployment=7, kind="deploy", services=tuple(names)))
        for name in names[:30]: start(view, name); see(view, name, "starting")
        for name in names[:25]: see(view, name, "ready"); end(view, name)
        end(view, "service-027", "E005 SERVICE_START_FAILED: exit code 3, a text too long for one line of it")
        await asyncio.sleep(0.3)
        """
    )
    assert [line.split()[1] for line in shown[1:6]] == [f"service-{n:03}" for n in range(25, 30)]
    assert shown[3].startswith("✗ service-027")
    assert shown[3].endswith("…")
    assert shown[6] == "  … 25 done, 170 waiting"
    assert all(len(line) <= 80 for line in shown)


def test_warnings_stand_above_the_table(screen):
    shown = screen(SMALL + 'view.listen(e.WarningRaised(message="disk is nearly full"))\nawait asyncio.sleep(0.2)')
    assert shown[0] == "warning: disk is nearly full"
    assert shown[1].startswith("deploy 7")


def test_a_rollback_is_said_in_the_head(screen):
    rollback = 'view.listen(e.RollbackStarted(deployment=7, reason="api did not become ready"))'
    shown = screen(f"{SMALL}{rollback}\nawait asyncio.sleep(0.2)")
    assert "rolling back: api did not become ready" in shown[0]


def test_no_color_is_honoured(screen):
    assert "\x1b[1;31m" not in screen(SMALL + 'end(view, "api", "E005")', env={"NO_COLOR": "1"}, raw=True)
    assert "\x1b[36m" in screen(SMALL, raw=True)
    assert "\x1b[36m" not in screen(SMALL, env={"NO_COLOR": "1"}, raw=True)


@pytest.mark.parametrize(("columns", "rows"), [(20, 5), (40, 3), (200, 60)])
def test_it_survives_every_size(screen, columns, rows):
    shown = screen(SMALL, columns=columns, rows=rows)
    assert any(line.startswith("deploy 7") for line in shown)


def test_the_terminal_says_how_large_it_is_not_the_environment(screen):
    shown = screen(SMALL, columns=40, env={"COLUMNS": "200", "LINES": "3"})
    assert [line[:5] for line in shown[:4]] == ["deplo", "✓ db ", "• api", "  web"]
    assert shown[2].endswith("…")


def test_nothing_is_painted_before_anything_happens(screen):
    assert screen("await asyncio.sleep(0.3)") == [""] * 24


def test_images_on_their_way_are_seen_before_there_is_any_service(screen):
    lines = screen(
        """
        view.listen(e.ImageProgress(image="redis:7", doing="pulling", done=50, total=100))
        view.listen(e.ImageProgress(image="shop-api:1", doing="step 2/4: RUN make hunter2"))
        view.listen(e.ImageReady(image="nginx:1", how="pulled", duration=1.0))
        await asyncio.sleep(0.3)
        """
    )
    assert lines[0] == "image nginx:1 pulled in 1.0 s"
    assert lines[1].startswith("• redis:7     [##########          ]  50%") and lines[1].endswith("pulling")
    assert lines[2].startswith("• shop-api:1 ") and lines[2].endswith("step 2/4: RUN make ***")
