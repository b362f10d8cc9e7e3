"""The one exception for a user's mistake: its message is the line the user sees."""

from __future__ import annotations


class HashretError(Exception):
    """Wrong input. The message says what is wrong and what to do; the CLI prints it and exits with 2."""
