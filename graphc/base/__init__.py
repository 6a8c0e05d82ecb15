"""The base of every room: errors and the user's line, checks of arguments, locks."""
