"""The package that all others import: errors, the user's line, checks of arguments, locks."""

__version__ = "0.1.0"
