"""The labs: right answers are accepted, wrong ones are rejected with their cause."""
