"""How one service moves from revision to revision: plain functions from a ``Change`` to steps."""
