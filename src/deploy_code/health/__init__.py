"""Is it ready, is it well: probes, what follows from their results, and who really listens on a port."""
