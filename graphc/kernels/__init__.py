"""Fused kernels: loops and products with expressions inside.  They know no machine and no LLVM."""
