"""Decides: ``(target, observed) -> Plan``, pure. No clock, no randomness, no I/O, no asyncio in this package."""
