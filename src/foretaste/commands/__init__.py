"""Commands that `cli.py` loads when they are called."""
