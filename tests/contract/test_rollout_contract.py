"""Our own rollouts keep what every rollout promises, and so does the one that we show."""

from __future__ import annotations

from deploy_code.plan.rollouts.recreate import recreate
from deploy_code.testing.contracts import RolloutContract
from support.pages import names_of


class TestRecreate(RolloutContract):
    rollout = recreate


class TestRollingOfTheHowTo(RolloutContract):
    rollout = names_of("how-to/rollout.md")["rolling"]
