"""The control API and what it serves."""
