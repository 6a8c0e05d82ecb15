"""`gc.export_c`: a model as one C file and its header."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from graphc.backends.backend import model_writer
from graphc.base.arguments import check_choice, checked_whole, takes
from graphc.base.errors import GraphError
from graphc.base.loc import caller_loc
from graphc.files.code.header import header
from graphc.files.code.interface import interface
from graphc.files.disk import AnyPath, write_file
from graphc.runtime.executor import Executor


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
    name: str | None = None,
) -> list[Path]:
    """Write a model as a C99 file and its header, which need no library.

    Parameters
    ----------
    ex
        The executor; its state is in the file.
    path
        The C file; the header has the same name with the suffix `.h`.
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

    Returns
    -------
    list of Path
        The files: C, header, and the state's if it is one.

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
    >>> file, header = gc.export_c(ex, "line.c", infer_only=True)
    >>> print(header.read_text().splitlines()[-7])
    void line_infer(void *work, ptrdiff_t n, const float *x, float *line);
    """
    if not isinstance(ex, Executor):
        raise GraphError(
            f"export_c takes an executor, not {type(ex).__name__}",
            loc=caller_loc(),
            hint='gc.export_c(ex, "model.c") with ex = gc.Executor(plan)',
        )
    check_choice("weights", weights, ("in", "file"))
    for what, number in (("batch", batch), ("budget", budget)):
        if number is not None:
            checked_whole(what, number)
    writer = model_writer("c")
    model = interface(
        ex,
        writer,
        name=name,
        infer_only=infer_only,
        constant=infer_only and weights == "in",
        backward=backward,
        batch=batch,
        budget=budget,
    )
    file = Path(path)
    beside, state = file.with_suffix(".h"), file.with_suffix(".bin")
    separate = weights == "file"
    written = {beside: header(model, separate), file: writer.write(model, beside.name, separate)}
    if separate:
        written[state] = model.state_image()
    for each, content in written.items():
        write_file(each, [content])
    return sorted(written, key=lambda each: each != file)
