"""Read a file of any kind as a user would, and see what happens."""

from __future__ import annotations

import tempfile
from pathlib import Path
from zlib import crc32

from google.protobuf.message import DecodeError
from onnx import ModelProto

import graphc as gc
from graphc import onnx
from graphc.base.errors import GraphError
from graphc.data.table import read_table
from graphc.files.serialize import from_bytes, read_checkpoint
from graphc.files.torch_state import load_torch_state
from graphc.ir.text import parse_graph
from graphc.ir.text.graph import graph_text, word_of
from graphc.ops import OPS
from graphc.train.record.folder import RunFolder
from tests.tools.fuzz_files.seeds import Kind, normed

COMPILED = 4
"""One of so many nets of ONNX models is compiled."""
ROOM = 16 << 20
"""Plans that say that they need more bytes are not given them."""
_WORDS = {word_of(cls): cls for cls in OPS.values()}


def read(kind: Kind, data: bytes, folder: Path) -> bool:
    """Whether the file was read; False where an error of graphc's own says that it cannot be.

    Anything else that is raised is a fault of graphc.
    """
    try:
        if kind == "model":
            from_bytes(data)
        elif kind == "onnx":
            return _read_onnx(data)
        elif kind == "text":
            graph_text(parse_graph(data.decode("utf-8", "replace"), _WORDS))
        else:
            _read_file(kind, data, folder)
    except GraphError:
        return False
    return True


def _read_onnx(data: bytes) -> bool:
    """Some of the nets are compiled, too, which is said to be as quick as their reading."""
    try:
        model = ModelProto.FromString(data)
    except DecodeError:
        return False
    net = onnx.load(model)
    if crc32(data) % COMPILED == 0:
        plan = gc.compile(net, batch=2, backend="numpy")
        if plan.memory.total < ROOM:
            gc.Executor(plan)
    return True


def _read_file(kind: Kind, data: bytes, folder: Path) -> None:
    if kind == "table":
        path = folder / "table.csv"
        path.write_bytes(data)
        read_table(str(path))
    elif kind == "weights":
        path = folder / "w.safetensors"
        path.write_bytes(data)
        load_torch_state(normed(), path, strict=False)
    elif kind == "run":
        (folder / "run.json").write_bytes(data)
        RunFolder(folder).about()
    else:
        (folder / "journal").write_bytes(data)
        journal = RunFolder(folder).journal()
        journal.steps(journal.first, min(journal.last, journal.first + 100))


def checkpoint(data: bytes) -> bool:
    """The same for a checkpoint."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "step.gc")
        path.write_bytes(data)
        try:
            read_checkpoint(path)
        except GraphError:
            return False
    return True
