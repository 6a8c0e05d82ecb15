"""Records of PyTorch's exporter besides the nodes: what is trained, and what a model is for."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from onnx import ModelProto, NodeProto, TensorProto

from graphc.onnx.model_file import graphs_of

SIGNATURE = "pkg.torch.export.ExportedProgram.graph_signature"
"""The key of a graph's metadata with a line for each parameter and buffer of the module."""
CLASSES, TARGET = "pkg.torch.onnx.class_hierarchy", "pkg.torch.onnx.fx_node"
"""The keys of a node's metadata with the modules that it is of, and the call it was made of."""
RULE, FOLDED = "pkg.onnxscript.rewriter.rule_name", "FuseBatchNorm"
"""The key of the rule that made a node, and how those begin that fold batch norms."""
_LINE = re.compile(r"\w+: (PARAMETER|BUFFER|CONSTANT_TENSOR) target='([^']*)'(.*)")
_MOST = 3
"""The most names that a warning lists."""
AS_TRAINED = (
    "export it for training: torch.onnx.export(model.train(), ..., dynamo=True, optimize=False)"
)


def recorded(model: ModelProto) -> dict[str, str]:
    """Return what the module's arrays are by name: "parameter", "buffer" or "constant".

    It is empty if the exporter does not say.  A buffer that no state_dict has is a constant.
    """
    entries = {entry.key: entry.value for entry in model.graph.metadata_props}
    signature = entries.get(SIGNATURE)
    kinds: dict[str, str] = {}
    for line in signature.split("\n") if isinstance(signature, str) else ():
        found = _LINE.match(line)
        if found and found[1] == "PARAMETER":
            kinds[found[2]] = "parameter"
        elif found:
            kept = found[1] == "BUFFER" and "persistent=False" not in found[3]
            kinds[found[2]] = "buffer" if kept else "constant"
    return kinds


def for_inference(model: ModelProto) -> str:
    """Return why a model is not what one would train, or "" if nothing shows that it is not.

    Dropout that an exporter left out leaves no trace, but batch norms and PyTorch's records may.
    """
    kinds, floats = recorded(model), (TensorProto.FLOAT, TensorProto.DOUBLE)
    own = [t.name for t in model.graph.initializer if t.dims and t.data_type in floats]
    made = [name for name in own if kinds and name not in kinds]
    rules = (_entries(node).get(RULE, "") for nodes in graphs_of(model) for node in nodes)
    if any(rule.startswith(FOLDED) for rule in rules):
        why = "its exporter made batch norms parts of other layers"
    elif made:
        names = ", ".join(map(repr, made[:_MOST]))
        why = f"its exporter put numbers of its own in the place of parameters ({names})"
    elif any(_is_inference(node) for node in _metadata(model)) and not _drops(model):
        why = "it was exported for inference, so that dropout, if it drops anything, is left out"
    else:
        return ""
    return f"{why}; {AS_TRAINED}" if model.producer_name == "pytorch" else why


def _drops(model: ModelProto) -> bool:
    return any(node.op_type == "Dropout" for nodes in graphs_of(model) for node in nodes)


def _metadata(model: ModelProto) -> Iterator[Mapping[str, str]]:
    """Yield what is recorded of each node that normalises a batch, or was dropout."""
    for nodes in graphs_of(model):
        for node in nodes:
            entries = _entries(node)
            if node.op_type == "BatchNormalization":
                flags = [a.i for a in node.attribute if a.name == "training_mode"]
                yield {"training": str(int(any(flags))), **entries}
            elif node.op_type == "Identity" and "Dropout'" in entries.get(CLASSES, ""):
                yield entries


def _entries(node: NodeProto) -> dict[str, str]:
    return {entry.key: str(entry.value) for entry in node.metadata_props}


def _is_inference(entries: Mapping[str, str]) -> bool:
    """Return whether a node was exported as it acts in inference."""
    if "training" not in entries:
        return True
    if TARGET in entries:  # this exporter writes the same attribute in both cases
        return "no_training" in entries[TARGET]
    return entries["training"] == "0"
