"""The other half: one long-lived program per project that makes the wanted set so and keeps it so.

Started with ``python -m deploy_code.agent STATE_DIR``; nothing imports it. It works on resolved, plain data and imports
neither pydantic nor config, plan or orchestrator, so that it stays small beside the services it keeps.
"""
