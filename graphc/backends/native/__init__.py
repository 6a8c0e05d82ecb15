"""The native backend: it compiles each program of a plan from generated LLVM IR."""
