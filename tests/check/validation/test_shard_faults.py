"""Faults planted in what cuts a step into shards, and what catches each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import graphc as gc
from graphc.check.validation import ValidationError, validate_pass
from graphc.check.validation.validate import Watch
from graphc.compiler.loss_share import divisors, loss_shares
from graphc.ops.source import Parameter
from passes import keep_sends
from passes.backward import Backward
from passes.data_parallel import DataParallel
from passes.shard import Shard
from passes.specialize import Specialize
from tests.check.validation.faults import Fault, plant


def net() -> gc.Net:
    """A mask, a normalisation, a weight that is read twice, and a loss of each kind."""
    made = gc.Net("net", dtype="float64")
    x, t = made.input("x", (gc.N, 4)), made.input("t", (gc.N, 4))
    weight = made.input("weight", (gc.N,))
    w = made.parameter("w", (4, 4), init="he")
    h = gc.batchnorm(gc.dropout(gc.matmul(x, w), keep_prob=0.5, name="drop"), name="bn")
    h = gc.matmul(gc.tanh(h), w)
    made.output("h", h)
    made.loss("mean", gc.mse_loss(h, t))
    made.loss("weighted", gc.mae_loss(h, t, weight=weight))
    made.loss("sum", 0.1 * gc.sum((h - t) ** 2))
    return made


def plain() -> gc.Net:
    """Without a normalisation: the shards of any cut make up the batch."""
    made = gc.Net("plain")
    x, t = made.input("x", (gc.N, 3)), made.input("t", (gc.N, 2))
    weight = made.input("weight", (gc.N,))
    h = gc.affine(gc.dropout(x, keep_prob=0.5, name="drop"), 2, name="h")
    made.loss("weighted", gc.mse_loss(h, t, weight=weight))
    made.loss("sum", gc.sum(gc.huber_loss(h, t, reduction="sum") * 0.5))
    return made


SHARD, EXCHANGE = "passes.shard", "passes.data_parallel"

# fmt: off
FAULTS = (
    # the fault, a net that shows it, the function; what is right, what is wrong; what catches it
    Fault("a loss is not weighed", plain, f"{SHARD}:Shard.__call__",
          "mul(value, share_of(b, share, value.dtype), name=name)", "value",
          "shard: output 'weighted'"),
    Fault("every loss counts by its rows", plain, f"{SHARD}:Shard.__call__",
          "share_of(b, share,", "share_of(b, 'rows',", "shard: output 'sum'"),
    Fault("a weighted mean is taken for one of rows", plain,
          "graphc.compiler.loss_share:divided_by",
          "isinstance(node.op, RowLoss)", "False", "shard: output 'weighted'"),
    Fault("a shard divides by its own weights", plain, f"{SHARD}:Shard._with_inputs",
          "node.name in self.divisors", "False", "shard: output 'weighted'"),
    Fault("a sum is taken for a mean", plain, "graphc.compiler.loss_share:_of_node",
          "SUM if added else ROWS", "ROWS", "shard: output 'sum'"),
    Fault("masks are those of the first rows", plain, f"{SHARD}:_keyed",
          "(*node.inputs, first)", "node.inputs", "shard: output"),
    Fault("data is not exchanged", net, f"{EXCHANGE}:DataParallel.__call__",
          "zip(gradients, sums,", "zip(gradients[1:], sums[1:],", "data_parallel: gradient"),
    Fault("a gradient stays that of the shard", net, f"{EXCHANGE}:DataParallel.__call__",
          "{k: v for (k, _), v in", "{k: v if k != 'w' else _.name for (k, _), v in",
          "data_parallel: gradient 'w'"),
    Fault("the loss stays that of the shard", net, f"{EXCHANGE}:DataParallel.__call__",
          "{loss: next(others) for", "{loss: next(others) and graph.outputs[loss] for",
          "data_parallel: output 'mean'"),
    Fault("a gradient is sent before it is complete", net, f"{EXCHANGE}:_gradients",
          "b.value(gradient)",
          "b.value(b.nodes[gradient].inputs[0] if b.nodes[gradient].op.name == 'add'"
          " else gradient)",
          "data_parallel: gradient 'w'"),
    Fault("the sums of two gradients change places", net, f"{EXCHANGE}:DataParallel.__call__",
          "zip(gradients, sums,", "zip([gradients[1], gradients[0], *gradients[2:]], sums,",
          "data_parallel: gradient"),
    Fault("running statistics stay the last shard's", net, f"{EXCHANGE}:DataParallel.__call__",
          "{state: next(others) for state in states}", "{}", "data_parallel: update"),
    Fault("running statistics are added up", net, f"{EXCHANGE}:_averaged",
          'share_of(b, "rows", value.dtype)', "1.0", "data_parallel: update"),
    Fault("all values of a bucket lie in one place", net, f"{EXCHANGE}:_sent",
          "offset += align", "offset += 0 * align", "data_parallel: send"),
    Fault("a bucket is sent without its last value", net, f"{EXCHANGE}:_sent",
          "Send(number, len(bucket), offset)", "Send(number, len(bucket) - 1, offset)",
          "data_parallel: bucket 0"),
    Fault("another bucket is awaited", net, f"{EXCHANGE}:_received",
          "Receive(op.bucket, op.members)", "Receive(op.bucket + 1, op.members)",
          "data_parallel: bucket 1"),
    Fault("a shard before the last keeps its loss", net, "passes.keep_sends:keep_sends",
          "for name in last}", "for name in last[1:]}", "keep_sends: send"),
    Fault("a shard before the last changes states", net, "passes.keep_sends:keep_sends",
          "for name in last}", "for name in last}, updates=graph.updates", "keep_sends: update"),
)
SYNCHRONISED = (
    Fault("only the mean is that of the batch", net, f"{SHARD}:Shard._with_inputs",
          "in STATISTICS}", "in ('mean',)}", "shard: output"),
    Fault("a statistic is the part of the shard", net, f"{SHARD}:_totalled",
          "b.apply(Total(), part, name=node.name)", "__import__('graphc').reshape(part, part.shape,"
          " name=node.name)", "shard: output"),
    Fault("statistics of shards are added as they are", net, f"{SHARD}:_totalled",
          "mul(own, share_of(b, \"rows\", own.dtype), name=f\"{node.name}.part\")", "own",
          "shard: output"),
    Fault("mean and variance change places", net, f"{SHARD}:_normalised",
          "in STATISTICS)", "in STATISTICS[::-1])", "shard: output"),
    Fault("the eps of a normalisation is lost", net, f"{SHARD}:_normalised",
          "Normalize(node.op.eps)", "Normalize(1e-3)", "shard: output"),
    Fault("a statistic's gradient is that of one shard", net, "graphc.ops.exchange:Total.grad",
          "b.apply(Total(), dout)", "dout", "backward: gradient 'w'"),
    Fault("totals lie where gradients do", net, f"{EXCHANGE}:DataParallel.__call__",
          "last.bucket + 1, end)", "last.bucket + 1, 0)", "data_parallel: send"),
    Fault("a counter goes on before all have read it", net, f"{EXCHANGE}:DataParallel.__call__",
          "_advance_late(b, state, sums[-1])", "b.updates[state] = state", "data_parallel: update"),
)
# fmt: on


def validated(made: gc.Net, synchronise: bool) -> None:
    """Every pass of a step that is cut, one after the other, by a batch of seven rows."""
    graph = Specialize(True)(made.graph())
    names = tuple(node.name for node in graph if isinstance(node.op, Parameter))
    divided = tuple(divisor.name for divisor in divisors(made.graph()))
    for step in (
        Shard(loss_shares(made.graph()), divided, synchronise),
        Backward(graph.losses, names),
        DataParallel(),
        keep_sends.keep_sends,
    ):
        graph = validate_pass(step, graph, batches=(7,))


@pytest.mark.one_in(4)
@pytest.mark.parametrize(
    ("fault", "synchronise"),
    [*((fault, False) for fault in FAULTS), *((fault, True) for fault in SYNCHRONISED)],
    ids=[fault.what for fault in (*FAULTS, *SYNCHRONISED)],
)
def test_a_planted_fault_is_caught(
    fault: Fault, synchronise: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(fault, monkeypatch)
    with pytest.raises(ValidationError) as caught:
        validated(fault.net(), synchronise)
    step, _, what = fault.caught.partition(": ")
    assert str(caught.value).startswith(f"pass '{step}': {what}")


@pytest.mark.parametrize("synchronise", [False, True])
@pytest.mark.parametrize("made", [net, plain])
def test_without_a_fault_all_is_right(made: Callable[[], gc.Net], synchronise: bool) -> None:
    validated(made(), synchronise)


def test_compiling_judges_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And writes a test of what fails, with the losses that a smaller graph has."""
    options = {"batch": 7, "shards": 4, "optimizer": gc.SGD(lr=0.1), "backend": "numpy"}
    watch = Watch(plain().graph(), 7, tmp_path)
    gc.compile(plain(), **options, validate=watch)
    assert {"shard", "data_parallel", "keep_sends"} <= {*watch.judged}
    plant(FAULTS[4], monkeypatch)
    with pytest.raises(ValidationError) as caught:
        gc.compile(plain(), **options, validate=tmp_path)
    assert caught.value.mismatch.what == "output sum"
    assert caught.value.path is not None
    step = "Shard(counted=(('sum', 'rows',),), divisors=('mse_loss_1.weight',), synchronise=False)"
    assert step in caught.value.path.read_text()
