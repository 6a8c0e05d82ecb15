"""Graphs as text, for reading, golden tests, reports and files; it is read back.

    graph digits
    x: float32[N, 64] = input()
    scores: float32[N, 10] = affine(x, scores.weight, scores.bias)
    output scores = scores

One line a node: `name: type = op(operands)  attribute=value ...`.  Names with other
characters than letters, digits and `_ . /` are written in JSON's quotes.
"""

from __future__ import annotations

from graphc.ir.text.graph import graph_text, node_text, op_text
from graphc.ir.text.parse import parse_graph

__all__ = ["graph_text", "node_text", "op_text", "parse_graph"]
