"""The project as objects to program against: what ``deploy_code`` offers to programs that embed it.

Users import these names from where the API document has them (``deploy_code.orchestrator``, ``deploy_code.services``);
they live up here because they stand on the composition root.
"""
