"""Random nets, run by every part of graphc and compared with what their declaration means."""
