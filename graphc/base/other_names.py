"""Hints for names of other libraries: what to write in graphc instead."""

from __future__ import annotations

from collections.abc import Iterable

from graphc.base.door import higher
from graphc.base.errors import close_names

VALUE = {
    "T": "gc.transpose(x)",
    "view": "gc.reshape(x, shape)",
    "permute": "gc.transpose(x, axes)",
    "astype": "gc.cast(x, dtype)",
    "to": "gc.cast(x, dtype)",
    "float": 'gc.cast(x, "float32")',
    "double": 'gc.cast(x, "float64")',
    "long": 'gc.cast(x, "int64")',
    "size": "x.shape",
    "ndim": "x.type.rank",
    "dim": "x.type.rank",
    "detach": "gc.stop_gradient(x)",
    "pow": "x ** y",
    "backward": "net.loss(name, x); compiling derives its gradients",
    "item": "a value has no numbers before the net runs; see gc.Executor",
    "numpy": "a value has no numbers before the net runs; see gc.Executor",
    "tolist": "a value has no numbers before the net runs; see gc.Executor",
}
EXECUTOR = {
    "fit": "gc.fit(ex, (x, y), epochs=...)",
    "train": "ex.step(x=x, y=y), or ex.forward(x=x, y=y, train=True)",
    "eval": "ex.forward(x=x), which is inference",
    "zero_grad": "nothing to do, each step computes its own gradients",
    "save": "gc.save(path, ex)",
    "load": "gc.load(path)",
    "state_dict": "ex.state",
    "load_state_dict": "ex.state = arrays",
    "compile": "gc.compile(net, ...), before the executor is made",
    "summary": "net.summary()",
}
NET = {
    "compile": "gc.compile(net, batch=...)",
    "fit": "gc.fit(gc.Executor(plan), (x, y), epochs=...)",
    "predict": "gc.Executor(plan).predict(x)",
    "forward": "gc.Executor(plan).forward(x=x)",
    "train": "gc.Executor(plan).step(x=x, y=y)",
    "add": "a function for each layer: h = gc.affine(x, 10)",
    "parameters": "net.parameter(name, shape) to declare one, gc.Executor(plan).parameters for all",
    "save": "gc.save(path, gc.Executor(plan))",
}
THEIRS = {"Value": VALUE, "Executor": EXECUTOR, "Net": NET}


def no_member(kind: type, name: str) -> AttributeError:
    """Return the error for an attribute that a Value, Net or Executor lacks."""
    message = f"{kind.__name__!r} object has no attribute {name!r}"
    known = next(base.__name__ for base in kind.__mro__ if base.__name__ in THEIRS)
    if not name.startswith("_"):
        message += _hint(known, name)
    return AttributeError(message, name=name)


def _hint(kind: str, name: str) -> str:
    if name in THEIRS[kind]:
        return f"; here: {THEIRS[kind][name]}"
    if kind != "Value":
        return ""
    functions = [one for one in higher("names") if one.islower()]
    close = close_names(name, functions, n=1, cutoff=0.75)
    return f"; functions of values are graphc's: gc.{close[0]}(x)" if close else ""


FUNCTIONS = {
    "view": "reshape",
    "permute": "transpose",
    "interpolate": "resize",
    "upsample": "resize",
    "bmm": "matmul",
    "mm": "matmul",
    "chunk": "split",
    "indexselect": "gather",
    "maskedfill": "where",
    "norm": "l2_norm",
    "dense": "affine",
    "linear": "affine",
    "batchnormalization": "batchnorm",
    "batchnorm1d": "batchnorm",
    "batchnorm2d": "batchnorm",
    "layernormalization": "layernorm",
    "maxpool1d": "max_pool",
    "maxpool2d": "max_pool",
    "maxpooling2d": "max_pool",
    "avgpool2d": "avg_pool",
    "averagepooling2d": "avg_pool",
    "globalaveragepooling2d": "global_avg_pool",
    "multiheadattention": "multi_head_attention",
    "crossentropyloss": "softmax_loss",
    "crossentropy": "softmax_loss",
    "sparsecategoricalcrossentropy": "softmax_loss",
    "bcewithlogitsloss": "sigmoid_loss",
    "binarycrossentropy": "sigmoid_loss",
    "l1loss": "mae_loss",
    "concatenate": "concat",
    "cat": "concat",
    "clamp": "clip",
    "rand": "random_uniform",
    "randn": "random_normal",
    "categorical": "log_softmax",
    "sequential": "Net",
    "model": "Net",
    "module": "Net",
    "dataloader": "fit",
    "train": "fit",
}
"""For other libraries' names, in small letters without `_`, graphc's."""


OPTIONS = {
    "dim": ("axis", "axes"),
    "dims": ("axes", "axis"),
    "hidden_size": ("width",),
    "keepdim": ("keepdims",),
    "kernel_size": ("kernel",),
    "negative_slope": ("slope", "alpha"),
    "num_heads": ("heads",),
    "p": ("drop_prob",),
    "rate": ("drop_prob",),
    "scale_factor": ("scales",),
    "size": ("sizes",),
}
"""For other libraries' options, graphc's, the likeliest first."""


def option_hint(name: str, known: Iterable[str]) -> str:
    """Return a hint for an option that a function lacks, or "" if none is meant."""
    close = [one for one in OPTIONS.get(name, ()) if one in known]
    if close:
        return f"it is {close[0]}"
    near = close_names(name, known, n=1, cutoff=0.75)
    return f"did you mean {near[0]}=?" if near else ""


def no_attribute(name: str, known: Iterable[str]) -> AttributeError:
    """Return the error for a name that graphc lacks, with the name that is meant if it is known."""
    plain = name.replace("_", "").lower()
    if name.startswith("_"):
        known = ()  # no name of another library, but asked for by tools that look at modules
    small = {one.replace("_", "").lower(): one for one in known}
    meant = small.get(plain) or FUNCTIONS.get(plain)
    if meant is None:
        close = close_names(plain, small, n=1, cutoff=0.75)
        meant = small[close[0]] if close else None
    hint = "" if meant is None else f"; you may mean gc.{meant}"
    if plain == "input":
        hint = "; inputs belong to a net: net.input(name, shape)"
    return AttributeError(f"module 'graphc' has no attribute {name!r}{hint}", name=name)
