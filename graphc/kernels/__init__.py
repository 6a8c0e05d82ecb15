"""Fused kernels: loops and products with expressions inside, without machine or LLVM details."""
