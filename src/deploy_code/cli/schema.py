"""``deploy-code schema``"""

from __future__ import annotations

import click

from deploy_code.cli.options import Options, command
from deploy_code.cli.output import emit, to_json, write


@command("schema", data=True)
@click.option("--reference", is_flag=True, help="Print the annotated file with every option instead.")
@click.pass_obj
def schema(options: Options, reference: bool) -> None:
    """Print the JSON Schema of the file.

    Editors complete and check with it: write it to a file and put
    `# yaml-language-server: $schema=FILE` on the first line of deploy-code.yaml.
    """
    if reference:
        from importlib.resources import files

        write(files("deploy_code.config").joinpath("reference.yaml").read_text(encoding="utf-8").rstrip("\n"))
        return
    from deploy_code.config import json_schema

    found = json_schema()
    emit(found, options, lambda: to_json(found))
