"""graphc beside what else one would take: PyTorch, JAX, PyTensor, numba, NumPy, ONNX Runtime,
OpenVINO.

    env -u OPENBLAS_CORETYPE -u OPENBLAS_L2_SIZE python -m tests.tools.benchmarks.peers

declares each workload once, has every side build it, compares its losses and scores with float64,
and times the sides in turns, each in a process of its own.
"""
