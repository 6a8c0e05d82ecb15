"""A model as one LLVM module with the functions of the C file, for the object of any target.

The kernels are those of the native backend, run by one thread: part 0 of 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from graphc.backends.interface import Argument, Entry, Interface
from graphc.backends.native.cross import compiled, lacking, module_of, target_of
from graphc.backends.native.ir import Function, Value
from graphc.backends.native.llvm import LLVM, missing_llvm
from graphc.backends.native.panels import scratch_sizes
from graphc.backends.native.program import Kernels
from graphc.backends.native.target import Target
from graphc.backends.native.vectors import element_type
from graphc.backends.native.wasm import linked
from graphc.base.errors import GraphError
from graphc.base.loc import caller_loc
from graphc.ir.op import Array
from graphc.ir.tensor_type import ITEMSIZE, align, count
from graphc.kernels.program import Buffer, Program

WORDS = 4
"""The elements that a copy moves at a time."""


class ObjectWriter:
    """The writer of objects for a target; for WebAssembly, of complete modules."""

    backend = "native"

    def __init__(self, target: Target) -> None:
        self.target = target

    def scratch(self, program: Program) -> Sequence[int]:
        """Return the scratch bytes that each instruction needs."""
        return scratch_sizes(program, self.target.bits, self.target.words)

    def write(self, model: Interface, header: str, separate: bool, test: str) -> tuple[bytes, None]:
        """Return the object or module of a model."""
        text = LLVM(object_ir, model, self.target, separate)
        made = LLVM(compiled, text, self.target)
        return (_module(model, made, separate) if self.target.wasm else made), None


def writer(triple: str | None, cpu: str | None) -> ObjectWriter:
    """Return the writer for a target; raise GraphError if there is none."""
    reason = missing_llvm()
    if reason is not None:
        raise GraphError(f"no object can be made: {reason}", loc=caller_loc())
    return ObjectWriter(LLVM(target_of, triple, cpu))


def _module(model: Interface, made: bytes, separate: bool) -> bytes:
    """Return the complete module of an object for WebAssembly."""
    names = [f"{model.prefix}_init"] if model.state and not separate else []
    functions = {name: model.symbol(name) for name in (*names, *(e.name for e in model.entries))}
    sizes = {"state_bytes": model.state_bytes, "work_bytes": model.work_bytes, "batch": model.batch}
    constants = {f"{model.prefix}_{name}": size for name, size in sizes.items()}
    arrays = [a.type for e in model.entries for a in e.arguments]
    room = model.nbytes + sum(align(type.nbytes(model.batch)) for type in arrays)
    return linked(made, functions, constants, room)


def object_ir(model: Interface, target: Target, separate: bool) -> str:
    """Return the text of the module of a model; `separate` leaves out its first state."""
    return _Export(model, target).text(separate)


class _Export:
    """The module of a model under construction."""

    def __init__(self, model: Interface, target: Target) -> None:
        self.model, self.target = model, target
        fused = all(entry.program.contract == "fused" for entry in model.entries)
        self.module = module_of(target, lacking(target), fused)
        self.kernels = Kernels(self.module, target)
        self.index = f"i{target.pointer}"
        """The type of ptrdiff_t."""

    def text(self, separate: bool) -> str:
        """Return the text of the whole module; `separate` leaves out the first state."""
        if self.model.state and not separate:
            self._init()
        for entry in self.model.entries:
            self._function(entry)
        constants = self.model.constants.items()
        self.module.data += [_constant(f".{name}", array) for name, array in constants]
        return self.module.text()

    def _init(self) -> None:
        """Append the function that sets the state to its first values."""
        f = Function(
            self.module, self.model.symbol(f"{self.model.prefix}_init"), "ptr %state", linkage=""
        )
        f.call(self._zeros(), "%state", str(self.model.state_bytes // 4))
        for i, (name, array) in enumerate(self.model.first_values.items()):
            self.module.data.append(_constant(f".initial{i}", array))
            place = f.address("%state", self.model.offsets[name], "i8")
            dtype = array.dtype.name
            f.call(self._copy(dtype), place, f"@.initial{i}", str(array.size))
        f.ret()
        self.module.add(f)

    def _function(self, entry: Entry) -> None:
        """Append the function of a program."""
        memory = ["ptr %state"] if self.model.state else []
        listed = [*memory, "ptr %work", f"{self.index} %rows", *map(_typed, entry.arguments)]
        loss = element_type(entry.losses[0].type.dtype) if entry.losses else "void"
        name = self.model.symbol(entry.name)
        f = Function(self.module, name, ", ".join(listed), linkage="", result=loss)
        extends = "sext" if self.index == "i32" else "bitcast"
        f.do(f"%n = {extends} {self.index} %rows to i64")
        f.do("%tid = add i64 0, 0")
        f.do("%threads = add i64 0, 1")
        pointer = partial(self._pointer, f, entry)

        def scratch() -> Value:
            return f.address("%work", self.model.scratch_at, "i8")

        for number in entry.numbers:
            inside = entry.program.instrs[number].inside
            for epoch in range(inside.epochs if inside is not None and inside.at_once else 1):
                self.kernels.call(f, entry.program, number, pointer, scratch, epoch=epoch)
        for argument, buffer in entry.results:
            size = f.size(count(buffer.type.shape))
            f.call(self._copy(buffer.type.dtype), _name(argument), pointer(buffer), size)
        self._return(f, entry, pointer)
        self.module.add(f)

    def _return(self, f: Function, entry: Entry, pointer: Callable[[Buffer], Value]) -> None:
        """Append the return of the sum of the losses, if there are any."""
        if not entry.losses:
            f.ret()
            return
        type = element_type(entry.losses[0].type.dtype)
        total, *others = [f.value(f"load {type}, ptr {pointer(loss)}") for loss in entry.losses]
        for other in others:
            total = f.value(f"fadd {type} {total}, {other}")
        f.do(f"ret {type} {total}")

    def _pointer(self, f: Function, entry: Entry, buffer: Buffer) -> Value:
        base, offset = self.model.place(entry, buffer)
        if buffer.space == "constant":
            base = f"@.{base}"
        else:
            base = f"%{base}" if base in ("state", "work") else f"%a.{base}"
        return f.address(base, offset, "i8")

    def _copy(self, dtype: str) -> str:
        """Return the name of the function that copies elements, which the module gets once."""

        def emit(f: Function) -> None:
            """Emit the copy: several elements at a time, then one."""

            def move(type: str, i: Value, _: list[Value]) -> None:
                source, target = (f.address(p, i, element) for p in ("%source", "%target"))
                x = f.value(f"load {type}, ptr {source}, align {ITEMSIZE[dtype]}")
                f.do(f"store {type} {x}, ptr {target}, align {ITEMSIZE[dtype]}")

            element, full = element_type(dtype), f.round_down("%count", WORDS)
            f.loop(0, full, WORDS, partial(move, f"<{WORDS} x {element}>"))
            f.loop(full, "%count", 1, partial(move, element))

        arguments = "ptr %target, ptr %source, i64 %count"
        return self.module.function("copy", arguments, emit, ("copy", dtype))

    def _zeros(self) -> str:
        """Return the name of the function that sets words of 4 bytes to zero."""

        def emit(f: Function) -> None:
            for i in f.each(0, "%count"):
                f.do(f"store i32 0, ptr {f.address('%target', i, 'i32')}")

        return self.module.function("zeros", "ptr %target, i64 %count", emit, "zeros")


def _name(argument: Argument) -> Value:
    return f"%a.{argument.name}"


def _typed(argument: Argument) -> str:
    return f"ptr {_name(argument)}"


def _constant(name: str, array: Array) -> str:
    """Return the definition of an array."""
    data = "".join(f"\\{byte:02x}" for byte in array.tobytes())
    return f'@{name} = internal constant [{array.nbytes} x i8] c"{data}", align 16'
