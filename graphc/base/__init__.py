"""The lowest room: errors and the user's line, checks of arguments, locks."""

__version__ = "0.1.0"
