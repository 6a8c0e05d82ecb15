"""The files of the core, in the order in which one may read them.

They are what one must know to change the compiler, and run without any other file of graphc.
"""

from __future__ import annotations

CORE = {
    "graphc/base": "errors loc arguments docstrings door missing work formula scoped_lock",
    "graphc/ir": "exact tensor_type expr access forms kernel_rules op graph operators init build "
    "by_formula verify narrow interpreter text/graph",
    "graphc/ops": "__init__ apply source elementwise functions select reduce sums shape slicing "
    "linalg index optim losses/base losses/labels losses/classes autodiff fused",
    "graphc/declare": "selection optim/optimizer optim/slots optim/rule optim/sgd  net",
    "passes": "contract pipeline steps specialize cse fold_constants dead_code backward update "
    "fuse_affine_relu core",
    "graphc/kernels": "iteration_space kernel program traits group aliases groups fuse "
    "duration barriers interpret",
    "graphc/compiler": "schedule lowering memory index_bounds assignment program "
    "sizes plan driver request",
    "graphc/backends": "layout backend numpy/functions numpy/values numpy/access "
    "numpy/actions numpy/body numpy/products numpy/kernels numpy/planned numpy/backend",
    "graphc/runtime": "errors entry state workspace feeds bound runs executor",
}
"""The files by folder."""
FILES = tuple(f"{room}/{name}.py" for room, names in CORE.items() for name in names.split())
"""Their paths."""
