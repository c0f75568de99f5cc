"""What must not be seen, and who may do what."""
