"""``deploy-code validate``"""

from __future__ import annotations

import click

from deploy_code.cli.options import Options, command
from deploy_code.cli.output import emit, say_warnings, write

INVALID = 2


@command("validate", data=True)
@click.pass_obj
def validate(options: Options) -> int:
    """Check the configuration file.

    All problems at once, each with file, line, column and what to write instead. Looks at the file alone, not
    at the machine: that is `plan`'s. Exit 2 when there are problems.
    """
    from deploy_code.config import check_files

    problems, warnings = check_files(options.files)
    if not options.is_text:
        errors = [problem.coded() for problem in problems]
        emit({"is_valid": not errors, "errors": errors, "warnings": warnings}, options, str)
        return INVALID if errors else 0
    say_warnings(warnings, options)
    names = ", ".join(options.files)
    if problems:
        from deploy_code.errors import ConfigError

        count = f"{len(problems)} problem{'s' if len(problems) != 1 else ''}"
        raise ConfigError(f"{count} in {names}:", problems)
    write(f"{names} is valid." if len(options.files) == 1 else f"{names} are valid together.")
    return 0
