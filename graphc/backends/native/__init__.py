"""The native backend: a program of a plan as one function, generated as LLVM IR."""
