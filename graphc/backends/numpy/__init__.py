"""The numpy backend: each instruction is a few calls of NumPy with out=."""

from __future__ import annotations

from graphc.backends.numpy.conv import CONV
from graphc.backends.numpy.dropout import DROPOUT
from graphc.backends.numpy.elementwise import ELEMENTWISE
from graphc.backends.numpy.gather import GATHER
from graphc.backends.numpy.kernel import Call, Kernel
from graphc.backends.numpy.linalg import LINALG
from graphc.backends.numpy.loss import LOSS
from graphc.backends.numpy.norm import NORM
from graphc.backends.numpy.optim import OPTIM_KERNELS
from graphc.backends.numpy.pool import POOL
from graphc.backends.numpy.reduce import REDUCE
from graphc.backends.numpy.shape import SHAPE
from graphc.backends.numpy.smooth import SMOOTH

__all__ = ["KERNELS", "Call", "Kernel"]

KERNELS: dict[str, Kernel] = {
    **ELEMENTWISE,
    **SMOOTH,
    **REDUCE,
    **SHAPE,
    **GATHER,
    **LINALG,
    **NORM,
    **CONV,
    **POOL,
    **DROPOUT,
    **LOSS,
    **OPTIM_KERNELS,
}
