"""`gc.export_c` and `gc.export_object`: a model as one C file or object, and its header."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal

from graphc.backends.elf import undefined
from graphc.backends.writers import ModelWriter, model_writer
from graphc.base.arguments import takes
from graphc.base.docstrings import with_shared
from graphc.base.errors import GraphError
from graphc.base.loc import caller_loc
from graphc.files.code.header import certificate, facts, header
from graphc.files.code.interface import Options, interface
from graphc.files.code.self_test import test_text
from graphc.files.disk import AnyPath, shown, system_path, write_file
from graphc.runtime.executor import Executor

SHARED = """\
Parameters
----------
ex
    The executor; its state is in the file.
infer_only
    Whether the file only infers.  With weights in it they are constants: there is no state.
backward
    Whether it has a function for gradients alone, too.
batch
    The most rows of a call; None means those of the plan.
budget
    The most bytes of state and work.  A training step that needs more recomputes values.
weights
    "in" the file, or in a "file" of their own with the suffix `.bin`: the bytes of the state,
    which replace the function that sets it.
name
    The start of all names in the file; None means the net's name.
"""
"""The parameters of both functions."""


@with_shared(SHARED)
@takes('gc.export_c(ex, "model.c")')
def export_c(
    ex: Executor,
    path: AnyPath,
    *,
    infer_only: bool = False,
    backward: bool = False,
    batch: int | None = None,
    budget: int | None = None,
    weights: Literal["in", "file"] = "in",
    self_test: bool = False,
    name: str | None = None,
) -> list[Path]:
    """Write a model as a C99 file and its header, which need no library.

    Parameters
    ----------
    path
        The C file.  Beside it come a header (`.h`), with all sizes and the exact cost of a call,
        and a certificate (`.json`) of its use of memory; `graphc verify model.c` proves it.
    self_test
        Whether the file has a `main` under the macro `<NAME>_SELF_TEST`, which calls every
        function and compares what it computes, bit for bit, with what was computed here.

    Returns
    -------
    list of Path
        The files: C, header, certificate (`.json`), and the state's if it is one.

    Raises
    ------
    GraphError
        If a node has no form in C, or the file cannot be written.
    BudgetError
        If the model needs more bytes than `budget`.

    Examples
    --------
    >>> net = gc.Net("line")
    >>> line = net.output("line", gc.affine(net.input("x", (gc.N, 2)), 3))
    >>> ex = gc.Executor(gc.compile(net, batch=4))
    >>> file, header, certificate = gc.export_c(ex, "line.c", infer_only=True)
    >>> print(header.read_text().splitlines()[-7])
    void line_infer(void *work, ptrdiff_t n, const float *in_x, float *out_line);
    """
    options = Options(infer_only, backward, batch, budget, weights, name, self_test)
    return _export("export_c", ex, path, lambda: model_writer("c"), options)


@with_shared(SHARED)
@takes('gc.export_object(ex, "model.o", target="riscv64-linux")')
def export_object(
    ex: Executor,
    path: AnyPath,
    *,
    target: str | None = None,
    cpu: str | None = None,
    infer_only: bool = False,
    backward: bool = False,
    batch: int | None = None,
    budget: int | None = None,
    weights: Literal["in", "file"] = "in",
    name: str | None = None,
) -> list[Path]:
    """Write a model as an object for any machine, and the C header of its functions.

    It needs the extra `native`, and no compiler.  The functions are those of `export_c`, and so are
    their bits.  For the target `wasm32` the file is a complete WebAssembly module.

    Parameters
    ----------
    path
        The object.  Beside it come a header (`.h`) and a certificate (`.json`), as for `export_c`.
    target
        The triple of a target, such as "thumbv7em-none-eabihf"; None means this machine.
    cpu
        LLVM's name of a processor of the target, such as "cortex-m7"; None means a usual one.

    Returns
    -------
    list of Path
        The files: object, header, certificate, and the state's if it is one.

    Raises
    ------
    GraphError
        If the target is not known, a node has no form outside Python, or the file cannot be
        written.
    BudgetError
        If the model needs more bytes than `budget`.

    Examples
    --------
    >>> net = gc.Net("line")
    >>> line = net.output("line", gc.affine(net.input("x", (gc.N, 2)), 3))
    >>> ex = gc.Executor(gc.compile(net, batch=4))
    >>> file, *_ = gc.export_object(ex, "line.wasm", target="wasm32", infer_only=True)
    >>> file.read_bytes()[1:4]
    b'asm'
    """
    options = Options(infer_only, backward, batch, budget, weights, name)
    writer = partial(model_writer, "object", target, cpu)
    return _export("export_object", ex, path, writer, options)


BESIDE = ".h", ".json", ".bin"
"""The suffixes of the files beside the code: header, certificate, first state."""


def _export(
    function: str,
    ex: Executor,
    path: AnyPath,
    writer_of: Callable[[], ModelWriter],
    options: Options,
) -> list[Path]:
    """Write the files of a model, and return their paths."""
    file = _checked(function, ex, path)
    options.check()
    writer, separate = writer_of(), options.separate
    model, expected = interface(ex, writer, options)
    beside, proof = file.with_suffix(".h"), certificate(model)
    test = test_text(model, expected()) if options.self_test else ""
    code, stack = writer.write(model, beside.name, separate, test)
    known = facts(model, stack, proof, separate)
    written = {file: code, beside: header(model, known, separate, undefined(code))}
    written[file.with_suffix(".json")] = proof
    if separate:
        written[file.with_suffix(".bin")] = model.state_image(model.state)
    for each, content in written.items():
        write_file(each, [content])
    return [*written]


def _checked(function: str, ex: Executor, path: AnyPath) -> Path:
    """Return the path of the code; raise GraphError if it, or the executor, is of another kind."""
    if not isinstance(ex, Executor):
        raise GraphError(
            f"{function} takes an executor, not {type(ex).__name__}",
            loc=caller_loc(),
            hint=f'gc.{function}(ex, "{path}") with ex = gc.Executor(plan)',
        )
    file = Path(system_path(path))
    if file.suffix in BESIDE:
        raise GraphError(
            f"{function} writes {' and '.join(BESIDE)} beside the file: give it another suffix",
            loc=caller_loc(),
        )
    if not re.fullmatch(r"[\w .,+@=~()#%-]+", file.name) or not file.name.isprintable():
        raise GraphError(
            f"the name of the file {shown(file)} cannot be written in code",
            loc=caller_loc(),
            hint="use letters, digits, and characters such as . and -",
        )
    return file
