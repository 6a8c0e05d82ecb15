"""The backend that prints programs as C99, and runs them where a C compiler is at hand."""
