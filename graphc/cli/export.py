"""`graphc export`: write a model as an ONNX file, or as code that needs no Python."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from graphc.backends.backend import PORTABLE
from graphc.base.errors import GraphError
from graphc.cli.arguments import Command, Parser, file_name, nbytes, optimizer, positive, show
from graphc.cli.model import Model, load_model
from graphc.compiler.compile import compile
from graphc.files.code.export import export_c, export_object
from graphc.runtime.executor import Executor

COMMAND = Command(
    "export",
    order=140,
    help="write a model as an ONNX file, as C or as an object",
    description="Write a model as an ONNX file, with the weights of a saved model, or the initial "
    "weights of a declared one. The file holds all outputs and losses, and the inputs that they "
    "need. This needs the extra `onnx`.\n\n"
    "With --c, write a C99 file and its header instead, which infer and, if there is an optimizer, "
    "train without any library, in the memory that their caller gives.\n\n"
    "With --object, write an object with the same functions for a machine that --target names, "
    "such as thumbv7em-none-eabihf, aarch64-linux, riscv32 or wasm32; this machine if none. For "
    "wasm32 it is a complete WebAssembly module. This needs the extra `native`.",
    example="graphc export graphc-run/iris.gc -o iris.onnx\n"
    "graphc export graphc-run/iris.gc --c iris.c --batch 8\n"
    "graphc export graphc-run/iris.gc --object iris.wasm --target wasm32",
)
ONNX_ONLY = ("out", "training", "no_losses")
OBJECT_ONLY = ("target", "cpu")
C_ONLY = ("self_test",)
CODE_ONLY = ("infer_only", "backward", "batch", "budget", "weights", "optimizer")


def declare(parser: Parser) -> None:
    """Declare the arguments."""
    parser.add_model()
    _declare_onnx(parser)
    add = parser.add_argument_group("code").add_argument
    add("--c", metavar="FILE", help="write C99: this file, and a header beside it")
    add("--object", metavar="FILE", help="write an object: this file, and a header beside it")
    add("--target", metavar="TRIPLE", help="the machine of the object (default: this one)")
    add("--cpu", help="its processor, by LLVM's name (default: a usual one of the target)")
    add("--infer-only", action="store_true", help="constants for weights, and no training step")
    add("--backward", action="store_true", help="a function for gradients alone, too")
    add("--batch", type=positive, help="the most rows of a call (default: the model's, or 1)")
    add("--budget", type=nbytes, metavar="BYTES", help="the most bytes of state and work")
    add(
        "--weights",
        choices=("in", "file"),
        default="in",
        help="file: the first state is written to a file .bin beside the code",
    )
    add("--self-test", action="store_true", help="a main that tests the file, under a macro")
    parser.add_optimizer()
    parser.add_json()


def _declare_onnx(parser: Parser) -> None:
    add = parser.add_argument
    add("-o", "--out", metavar="FILE", help="the file to write (default: the net's name and .onnx)")
    add(
        "--training",
        action="store_true",
        help="the forward part of a training step, with dropout and batch statistics",
    )
    add(
        "--no-losses",
        action="store_true",
        help="leave out losses, and inputs such as labels that only they need",
    )


def run(args: argparse.Namespace) -> int:
    """Write the file."""
    _check_options(args)
    model = load_model(args.model)
    paths = _code(args, model) if args.c or args.object else [_onnx(args, model)]
    sizes = {str(path): path.stat().st_size for path in paths}
    data = {"wrote": paths[0], "bytes": sizes[str(paths[0])]}
    show(args, data, "\n".join(f"wrote {path}: {size:,} bytes" for path, size in sizes.items()))
    return 0


def _check_options(args: argparse.Namespace) -> None:
    """Raise GraphError for an option that the chosen kind of file does not have."""
    if args.c and args.object:
        raise GraphError("--c does not go with --object", hint="write one, and then the other")
    kinds = {
        "an ONNX file": (not (args.c or args.object), ONNX_ONLY),
        "an object: add --object FILE": (bool(args.object), OBJECT_ONLY),
        "C: add --c FILE": (bool(args.c), C_ONLY),
        "code: add --c FILE or --object FILE": (bool(args.c or args.object), CODE_ONLY),
    }
    for other, (chosen, names) in kinds.items():
        for name in () if chosen else names:
            if getattr(args, name) not in (None, False, "in"):
                option = f"--{name.replace('_', '-')}"
                kind = "a C file" if args.c else "an object" if args.object else "an ONNX file"
                raise GraphError(f"{option} does not go with {kind}", hint=f"it goes with {other}")


def _onnx(args: argparse.Namespace, model: Model) -> Path:
    from graphc.onnx import save

    out = args.out or f"{file_name(model.graph.name)}.onnx"
    return save(model.saved or model.net, out, train=args.training, losses=not args.no_losses)


def _code(args: argparse.Namespace, model: Model) -> list[Path]:
    if args.object:
        write, path = partial(export_object, target=args.target, cpu=args.cpu), args.object
    else:
        write, path = partial(export_c, self_test=args.self_test), args.c
    return write(
        _executor(args, model),
        path,
        infer_only=args.infer_only,
        backward=args.backward,
        batch=args.batch,
        budget=args.budget,
        weights=args.weights,
    )


def _executor(args: argparse.Namespace, model: Model) -> Executor:
    """Return the saved executor, or one of a declared net with initial weights."""
    if model.saved is not None and args.optimizer is None:
        return model.saved
    chosen = optimizer(args.optimizer)
    plan = compile(model.graph, batch=args.batch or 1, optimizer=chosen, backend=PORTABLE)
    return Executor(plan, state=model.saved.state if model.saved else None)
