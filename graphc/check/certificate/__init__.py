"""A plan's claims about its steps and its memory, as plain tables and as text."""
