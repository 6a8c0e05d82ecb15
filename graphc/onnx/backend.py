"""ONNX's backend interface, so that anybody's backend tests run with graphc."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, helper
from onnx.backend.base import Backend, BackendRep

from graphc.base.errors import FeedError, GraphError
from graphc.compiler.compile import compile
from graphc.ir.build import Value
from graphc.ir.op import Array
from graphc.ir.tensor_type import TensorType
from graphc.onnx.call import NeedsInputs, NotSupported, checked_dtype
from graphc.onnx.load import Imported, budget_of, check_ops, free_inputs, import_model
from graphc.onnx.model_file import check_limits
from graphc.onnx.narrow import NARROW
from graphc.runtime.executor import Executor

BFLOAT16 = helper.tensor_dtype_to_np_dtype(NARROW)
"""The dtype that onnx has for numbers of BFLOAT16."""
MOST_KEPT = 16
"""The largest number of executors that a model keeps, one for each set of shapes."""


class GraphcRep(BackendRep):
    """A model that is ready to run; it is compiled once for each set of input shapes."""

    def __init__(self, model: ModelProto, backend: str | None = None) -> None:
        self._model = model
        self._backend = backend
        self._inputs = free_inputs(model)
        self._kinds = [value.type.tensor_type.elem_type for value in model.graph.output]
        self._needed: set[str] = set()
        """The inputs whose numbers determine shapes."""
        self._runs: dict[Any, _Run] = {}

    def run(self, inputs: Any, **kwargs: Any) -> tuple[Any, ...]:
        """Return the outputs, in the model's order, for a sequence or mapping of arrays."""
        feeds = self._feeds(inputs)
        key = tuple((name, a.shape, a.dtype.name) for name, a in feeds.items())
        while True:
            whole = key, tuple((name, feeds[name].tobytes()) for name in sorted(self._needed))
            if whole in self._runs:
                found = zip(self._runs[whole](feeds), self._kinds, strict=True)
                return tuple(a.astype(BFLOAT16) if kind == NARROW else a for a, kind in found)
            known = {name: feeds[name] for name in self._needed}
            try:
                run = self._compiled(feeds, known)
            except NeedsInputs as error:  # shapes depend on these: fix them, and import once more
                self._needed |= set(error.names)
                continue
            if len(self._runs) >= MOST_KEPT:
                self._runs.pop(next(iter(self._runs)))
            self._runs[whole] = run

    def _feeds(self, inputs: Any) -> dict[str, Array]:
        if isinstance(inputs, np.ndarray):
            inputs = [inputs]
        if not isinstance(inputs, Mapping):
            inputs = dict(zip(self._inputs, inputs, strict=False))
        missing = [name for name in self._inputs if name not in inputs]
        if missing:
            raise FeedError(f"input {missing[0]!r} is missing")
        return {name: _array(name, inputs[name]) for name in self._inputs}

    def _compiled(self, feeds: Mapping[str, Array], known: Mapping[str, Array]) -> _Run:
        types = {}
        for name, array in feeds.items():
            if name not in known:
                try:
                    types[name] = TensorType(array.shape, checked_dtype(array))
                except (NotSupported, ValueError) as error:
                    raise FeedError(f"input {name!r}: {error}") from None
        name = self._model.graph.name or "model"
        with budget_of(self._model, name, None):
            imported = import_model(self._model, name, types, known, as_written=True)
            return _Run(imported, self._backend)


def _array(name: str, given: Any) -> Array:
    try:
        array = np.asarray(given)
        return array.astype(np.float32) if array.dtype.name == "bfloat16" else array
    except ValueError:
        raise FeedError(f"input {name!r} is not an array") from None


class _Run:
    """One compiled net, and the outputs that are known without running it."""

    def __init__(self, imported: Imported, backend: str | None) -> None:
        self._names = list(imported.outputs)
        self._known = {
            name: operand
            for name, operand in imported.outputs.items()
            if not isinstance(operand, Value)
        }
        net = imported.net
        self._executor: Executor | None = None
        self._inputs: set[str] = set()
        for name, operand in imported.outputs.items():
            if isinstance(operand, Value):
                net.output(name, operand)
        if len(self._known) < len(self._names):
            graph = net.graph()
            plan = compile(graph, batch=1, backend=backend)
            self._executor = Executor(plan)
            self._inputs = set(plan.programs["infer"].feeds)

    def __call__(self, feeds: Mapping[str, Array]) -> tuple[Any, ...]:
        found: dict[str, Any] = dict(self._known)
        if self._executor is not None:
            given = {name: array for name, array in feeds.items() if name in self._inputs}
            found.update(self._executor.forward(given))
        return tuple(np.array(found[name]) for name in self._names)


class GraphcBackend(Backend):
    """The implementation of ONNX's `Backend` interface by graphc."""

    @classmethod
    def prepare(cls, model: ModelProto, device: str = "CPU", **kwargs: Any) -> GraphcRep:
        """Check a model and return it ready to run.

        Parameters
        ----------
        model
            The model; it is compiled for each set of input shapes when it first runs with them.
        device
            "CPU".
        **kwargs
            `backend` is "native" or "numpy", by default the best that this machine has.

        Returns
        -------
        GraphcRep
            The model; its method `run` takes a sequence or mapping of arrays.

        Raises
        ------
        ModelFileError
            If the model is not valid.
        GraphError
            If the device is not the CPU, or the model has ops that graphc does not have.

        Examples
        --------
        >>> net = gc.Net("double")
        >>> y = net.output("y", net.input("x", (gc.N, 2)) * 2.0)
        >>> rep = gc.onnx.prepare(gc.onnx.to_proto(net))
        >>> rep.run([np.ones((1, 2), np.float32)])
        (array([[2., 2.]], dtype=float32),)
        """
        if not cls.supports_device(device):
            raise GraphError(f"graphc runs on CPU, not on {device}")
        check_limits(model)
        check_ops(model)
        return GraphcRep(model, kwargs.get("backend"))

    @classmethod
    def run_model(
        cls, model: ModelProto, inputs: Any, device: str = "CPU", **kwargs: Any
    ) -> tuple[Any, ...]:
        """Run a model once.

        Parameters
        ----------
        model, device, **kwargs
            As for `prepare`, whose errors it raises.
        inputs
            The arrays, in the model's order or by name.

        Returns
        -------
        tuple
            The outputs in the model's order.

        Examples
        --------
        >>> net = gc.Net("double")
        >>> y = net.output("y", net.input("x", (gc.N, 2)) * 2.0)
        >>> gc.onnx.run_model(gc.onnx.to_proto(net), [np.ones((1, 2), np.float32)])
        (array([[2., 2.]], dtype=float32),)
        """
        return cls.prepare(model, device, **kwargs).run(inputs)

    @classmethod
    def run_node(
        cls,
        node: NodeProto,
        inputs: Any,
        device: str = "CPU",
        outputs_info: Sequence[tuple[np.dtype[Any], tuple[int, ...]]] | None = None,
        **kwargs: Any,
    ) -> tuple[Any, ...]:
        """Run one node.

        Parameters
        ----------
        node
            The node.
        inputs
            The arrays, in the order of its operands or by name.
        device
            "CPU".
        outputs_info
            Ignored; a part of ONNX's interface.
        **kwargs
            `opset_version` selects the operator set; the others are as for `prepare`, whose errors
            it raises.

        Returns
        -------
        tuple
            The results in the node's order.

        Examples
        --------
        >>> import onnx
        >>> gc.onnx.run_node(onnx.helper.make_node("Neg", ["x"], ["y"]), [np.ones(2)])
        (array([-1., -1.]),)
        """
        version = kwargs.pop("opset_version", None)
        names = [name for name in node.input if name]
        arrays = inputs if isinstance(inputs, Mapping) else dict(zip(names, inputs, strict=False))
        infos = [
            helper.make_tensor_value_info(
                name, helper.np_dtype_to_tensor_dtype(np.asarray(array).dtype), np.shape(array)
            )
            for name, array in arrays.items()
        ]
        outputs = [helper.make_empty_tensor_value_info(name) for name in node.output if name]
        graph = helper.make_graph([node], "node", infos, outputs)
        opsets = [helper.make_opsetid(node.domain, version)] if version else None
        model = helper.make_model(graph, opset_imports=opsets)
        return cls.run_model(model, arrays, device, **kwargs)

    @classmethod
    def supports_device(cls, device: str) -> bool:
        """Return whether graphc runs on a device.

        Parameters
        ----------
        device
            Its name in ONNX, such as "CPU" or "CUDA:1".

        Returns
        -------
        bool
            Whether it is the CPU.

        Examples
        --------
        >>> gc.onnx.supports_device("CPU"), gc.onnx.supports_device("CUDA:1")
        (True, False)
        """
        return device.split(":")[0] == "CPU"


prepare = GraphcBackend.prepare
run_model = GraphcBackend.run_model
run_node = GraphcBackend.run_node
supports_device = GraphcBackend.supports_device
