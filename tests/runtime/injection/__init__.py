"""Exceptions raised at bytecodes: a call is done, not done, or said to be broken."""
