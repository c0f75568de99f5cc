"""``deploy-code init``"""

from __future__ import annotations

import os
import re

import click

from deploy_code.cli.options import Options, command
from deploy_code.cli.output import write

TEMPLATE = """\
# What runs here, and how. Every option, explained: deploy-code schema --reference
version: "1.0.0"
name: {name}
environment: development      # development, staging, production

deployment:
  strategy: Parallel          # as the dependencies allow; Sequential: one after the other
  rollback_on_failure: true   # when one service fails, everything this deploy changed is put back

services:
  # Try it as it is: it serves this folder on http://localhost:8080. Then put your own program here.
  web:
    command: python3          # one program, no shell; its arguments go below
    args: ["-m", "http.server", "8080", "--bind", "127.0.0.1"]
    ports:
      - container_port: 8080
    health_check:             # the deploy waits until this answers, and it is asked again ever after
      endpoint: /
      interval_seconds: 10

  # A second one that starts when the first is healthy:
  # worker:
  #   command: ./worker.py
  #   dependencies: [web]
  #   env:
  #     WEB_URL: http://localhost:8080
  #     API_KEY: ${{API_KEY}}   # from the environment, or from a file .env beside this one
"""


@command("init")
@click.pass_obj
def init(options: Options) -> None:
    """Write a small commented deploy-code.yaml.

    It runs as it is. A file that is there already is left alone; name another one with -c.
    """
    path = options.files[0]
    text = TEMPLATE.format(name=_project_name(path))
    if options.dry_run:
        write(text.rstrip("\n"))
        return
    try:
        with open(path, "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise click.UsageError(f"{path} is there already and was left alone; name another file with -c FILE") from None
    except OSError as error:
        raise click.UsageError(f"{path} cannot be written: {error.strerror}") from error
    write(f"Wrote {path}. Next: {options.line('plan')}, then {options.line('deploy')}.")


def _project_name(path: str) -> str:
    """The folder's name, as far as a name may hold it."""
    folder = os.path.basename(os.path.dirname(os.path.abspath(path)))
    return re.sub(r"[^a-z0-9_-]+", "-", folder.lower()).strip("-_") or "project"
