"""What every room stands on: mistakes and the user's line, arguments, locks."""
