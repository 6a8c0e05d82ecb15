"""Faults planted in passes and rules, and what catches each: the table is the test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import graphc as gc
from graphc.base.errors import RuleError
from graphc.check.validation import ValidationError
from graphc.runtime import reference
from tests.check.validation.faults import (
    Fault,
    derivative,
    frozen,
    images,
    layers,
    numbers,
    ops,
    plant,
)

SGD = gc.SGD(lr=0.1, momentum=0.9, weight_decay=0.1)
NESTEROV = gc.SGD(lr=0.1, momentum=0.9, nesterov=True)
CLIPPED = gc.SGD(lr=0.1, clip_norm=1.0)
ADAM = gc.Adam(weight_decay=0.1)
ADAMW = gc.AdamW(schedule=gc.Cosine(total=50, floor=0.1, warmup=4))
MANY = gc.SGD(lr=0.1, accumulate=3)
PARTS = gc.SGD(lr=0.1, groups=[gc.Group("first.*", lr=0.5), gc.Group("bn.*", frozen=True)])
STEADY = gc.NAdam(lr=0.1, ema=0.9, clip_value=0.5)

SELECT, ELEMENT, NORM = "graphc.ops.select", "graphc.ops.elementwise", "graphc.ops.norm"
CHANNELS = "passes.channels_last"
OPTIM, PASSES, LOSSES = "graphc.declare.optim", "passes", "graphc.ops.losses"

# fmt: off
FAULTS = (
    # the fault, a net that shows it, the function; what is right, what is wrong; what catches it
    # Gradient rules.
    Fault("relu lets every gradient through", layers, f"{SELECT}:Relu.grad",
          "b.apply(shared(ReluGrad), out, dout)", "dout", "backward: gradient"),
    Fault("tanh's gradient is not squared", ops, "graphc.ops.functions:Tanh.gradient_text",
          "out ** 2", "out", "backward: gradient"),
    Fault("a product's gradients are swapped", ops, f"{ELEMENT}:Mul.gradient_text",
          "d_out * b; d_out * a", "d_out * a; d_out * b", "backward: gradient"),
    Fault("a sum's gradient is not summed to a bias", ops,
          "graphc.ir.by_formula:_rule",
          'f"unbroadcast({_called',
          'text if (text, role) == ("d_out", "b") else f"unbroadcast({_called',
          "rule: its grad rule gives bias a cotangent of type"),
    Fault("unbroadcast takes a mean", ops, "graphc.ops.sums:unbroadcast",
          "value = sum_(value, axes, keepdims=True)",
          "from graphc.ops.reduce import mean; value = mean(value, axes, keepdims=True)",
          "backward: gradient"),
    Fault("a quotient's second gradient has no sign", ops, f"{ELEMENT}:Div.gradient_text",
          "-(d_out / b * out)", "d_out / b * out", "backward: gradient"),
    Fault("a power's gradient lacks the exponent", ops, f"{ELEMENT}:Power.grad",
          "mul(slope, self.exponent)", "mul(slope, 2.0)", "backward: gradient"),
    Fault("mean's gradient is not divided by N", ops, "graphc.ops.reduce:Mean.grad",
          "return (b.apply(MeanGrad(ins[0].shape, self.axes), self.spread(dout, ins)),)",
          "from graphc.ops.sums import broadcast_to; "
          "return (broadcast_to(self.spread(dout, ins), ins[0].shape),)", "backward: gradient"),
    Fault("max gives its gradient twice", ops, "graphc.ops.reduce:Max.grad",
          "mul(hit, share)", "mul(hit, mul(share, 2.0))",
          "backward: gradient"),
    Fault("a matrix product's gradient is not transposed", ops, "graphc.ops.linalg:MatMul.grad",
          "product(not self.trans_a, False), x, dout", "product(not self.trans_a, True), x, dout",
          "verify: "),
    Fault("affine's gradient uses the weight as it is", layers, "graphc.ops.linalg:Affine.grad",
          "False, True, order=self.order), dout", "False, False, order=self.order), dout",
          "verify: "),
    Fault("concat cuts its gradient from the start", ops, "graphc.ops.slicing:Concat.grad",
          "cut = (axis, start, stop, 1)", "cut = (axis, 0, operand.shape[axis], 1)",
          "backward: gradient"),
    Fault("transpose's gradient is transposed the same way", ops, "graphc.ops.shape:Transpose.grad",
          "self.axes.index(i) for i in range(len(self.axes))", "self.axes",
          "rule: its grad rule gives reshape_1 a cotangent of type"),
    Fault("clip's gradient passes outside", ops, f"{SELECT}:Clip.gradient_text",
          "where(x == out, d_out, 0)", "d_out", "backward: gradient"),
    Fault("softmax_loss forgets the label", layers, f"{LOSSES}.labels:SoftmaxRows.grad",
          "b.apply(SoftmaxRowsGrad(), *ins, dout)",
          "mul(softmax(ins[0]), reshape(dout, (*dout.shape, 1)))", "backward: gradient"),
    Fault("batchnorm's gradient holds statistics fixed", layers, f"{NORM}:BatchNormTrain.grad",
          "b.apply(BatchNormDx(self.eps), x, gamma, dout)",
          "mul(dout, div(_spread(gamma, x), sqrt(add(_spread(_statistics(x, 's')[1], x), 1e-5))))",
          "backward: gradient"),
    Fault("a value that is read twice gets one gradient", layers,
          "graphc.ops.autodiff:_Reverse._sum",
          "enumerate(parts[1:], 2)", "enumerate(parts[1:1], 2)", "backward: gradient"),
    Fault("the losses' gradient starts at 2", layers, "passes.backward:Backward._seed",
          "constant(b, 1.0", "constant(b, 2.0", "backward: gradient"),
    Fault("only the first loss is differentiated", ops, "passes.backward:Backward.__call__",
          "for name in self.losses", "for name in self.losses[:1]", "backward: gradient"),
    # Simplifying.
    Fault("cse does not look at attributes", ops, "passes.cse:cse",
          "(node.op, inputs)", "(type(node.op), inputs)", "cse: output"),
    Fault("cse merges dropouts of different seeds", layers, "passes.cse:cse",
          "(node.op, inputs)",
          "('mask' if node.op.name == 'dropout_mask' else node.op, inputs)", "cse: output"),
    Fault("cse takes a - b for b - a", numbers, "passes.cse:cse",
          "(node.op, inputs)", "(node.op, tuple(sorted(inputs)))", "cse: output"),
    Fault("cse merges inputs", ops, "passes.cse:cse",
          "(node.op.is_source and not node.op.is_constant)", "False",
          "cse: output"),
    Fault("dead_code drops the updates of states", layers, f"{PASSES}.dead_code:_live",
          "graph.pruned()", "Graph(graph.name, graph, outputs=graph.outputs, losses=graph.losses,"
          " gradients=graph.gradients).pruned()", "dead_code: update"),
    Fault("dead_code drops an output", ops, f"{PASSES}.dead_code:_live",
          "graph.pruned()", "Graph(graph.name, graph, outputs=dict([*graph.outputs.items()][1:]),"
          " losses=graph.losses, updates=graph.updates, gradients=graph.gradients).pruned()",
          "dead_code: output"),
    Fault("fold_constants takes a state for its start", layers, "passes.fold_constants:_folded",
          "constants = [", "operands = [replace(o, op=constant_op(np.full(o.op.shape, o.op.start,"
          " o.op.dtype))) if o.op.name == 'state' else o for o in operands]\n    constants = [",
          "fold_constants: "),
    Fault("fold_constants rounds", numbers, "passes.fold_constants:_folded",
          "constant_op(value)", "constant_op(value * (1 - 1e-6) if value.dtype.kind == 'f' "
          "else value, value.dtype.name)", "fold_constants: output"),
    Fault("x - -0.0 counts as x", numbers, "passes.fold_constants:_is_all",
          " and not np.any(np.signbit(array))", "", "fold_constants: output"),
    Fault("x * 1 counts as x where it broadcasts", numbers, "passes.fold_constants:_simplified",
          "equal.type != node.type", "equal.type.rank != node.type.rank", "verify: "),
    Fault("two transposes are joined the wrong way round", numbers, "passes.fold_constants:_joined",
          "x.op.axes[axis] for axis in op.axes", "op.axes[axis] for axis in x.op.axes[::-1]",
          "verify: "),
    Fault("-(-x) counts as -x", numbers, "passes.fold_constants:_matched",
          "_matched(part, nodes[operand], nodes)",
          "_matched(part, nodes[operand], nodes) and nodes[operand]",
          "fold_constants: output"),
    # Fusing.
    Fault("fusion does not count the readers", layers, "passes.fuse_affine_relu:fuse_affine_relu",
          "graph.feeds_only(first.name, node.name)", "True", "verify: "),
    Fault("the fused mask is the gradient's", layers, "passes.fuse_affine_relu:_join",
          "(*first.inputs, out)", "(*first.inputs, first.inputs[0] if graph[first.inputs[0]].type"
          " == graph[out].type else out)", "fuse_affine_relu: gradient"),
    Fault("the fused product is not transposed", layers, "passes.fuse_affine_relu:_join",
          "op.trans_b", "not op.trans_b", "verify: "),
    Fault("fold_batchnorm has an eps of its own", frozen, "passes.fold_batchnorm:_scaled",
          "variance + eps", "variance + 1e-3", "fold_batchnorm: output"),
    Fault("fold_batchnorm leaves the mean out", frozen, "passes.fold_batchnorm:_scaled",
          "(bias - average) * scale", "bias * scale", "fold_batchnorm: output"),
    Fault("fold_batchnorm scales the inputs of the weight", frozen, "passes.fold_batchnorm:_scaled",
          "_wide(graph, first.inputs[1]) * scale",
          "_wide(graph, first.inputs[1])"
          " * np.resize(scale, (graph[first.inputs[1]].type.shape[0], 1))",
          "fold_batchnorm: output"),
    Fault("fold_batchnorm takes what others read", frozen, "passes.fold_batchnorm:_folds",
          "graph.feeds_only(one.name, user.name)", "True", "verify: "),
    Fault("shared statistics are of another value", layers,
          "passes.share_batchnorm_statistics:_Sharing._rewrite",
          "(x, *found, gamma, beta)", "(x, found[1], found[0], gamma, beta)",
          "share_batchnorm_statistics: output"),
    Fault("the sums of a normalisation are swapped", layers,
          "passes.share_batchnorm_statistics:_Sharing._rewrite_dx",
          "dgamma.name, dbeta.name)", "dbeta.name, dgamma.name)",
          "share_batchnorm_statistics: gradient"),
    # Images.
    Fault("a transpose of any kind counts as one back", images, f"{CHANNELS}:_Rewriter._known",
          "isinstance(node.op, Transpose) and node.op.axes == _last_axes(node.type.rank)",
          "isinstance(node.op, Transpose)", "channels_last: output"),
    Fault("a number for each line counts as one a channel", images, f"{CHANNELS}:_matrix_shape",
          "padded[2:]", "padded[3:]", "verify: "),
    Fault("images are joined along the axis that it was", images, f"{CHANNELS}:_on_image",
          "Concat(to[normal_axis(op.axis, rank)])", "Concat(op.axis)", "verify: "),
    Fault("a part is cut along the axis that it was", images, f"{CHANNELS}:_on_image",
          "(to[axis], *rest)", "(axis, *rest)", "verify: "),
    Fault("an image is padded along the axis that it was", images, f"{CHANNELS}:_on_image",
          "tuple(op.pads[axis] for axis in _last_axes(rank))", "op.pads", "verify: "),
    Fault("channels are last, and weights are not transposed", images,
          "graphc.ops.conv_layer:_space_first", "(*range(2, weight.type.rank), 1, 0)",
          "(*range(2, weight.type.rank), 0, 1)", "specialize: output"),
    Fault("the bias is left out", images, "graphc.ops.conv_layer:ConvolutionLayer.finished",
          "add(pixels(y), ins[2],", "add(pixels(y), 0.0,", "specialize: output"),
    # Layers.
    Fault("a derivative inside the net is wrong", derivative,
          "graphc.ops.functions:Tanh.gradient_text", "out ** 2", "out", "specialize: grad"),
    Fault("a weighted loss is divided by the rows", derivative, f"{LOSSES}.base:RowLoss.expand",
          "sum_(count, name=", "mul(mean(count), 2.0, name=", "specialize: output"),
    Fault("batchnorm infers by the statistics of the batch", layers,
          f"{NORM}:BatchNorm._expand_rows", "if not self.by_batch(train)", "if False",
          "specialize: output"),
    Fault("running statistics keep the wrong share", layers, f"{NORM}:BatchNorm._expand_rows",
          "mul(state, self.running_decay,", "mul(state, 1 - self.running_decay,",
          "specialize: update"),
    Fault("running statistics go stale", layers, f"{NORM}:BatchNorm._expand_rows",
          "b.update(state, ", "(state, ", "specialize: update"),
    Fault("the running variance is that of N - 1", layers, f"{NORM}:_statistics",
          "mean(square, axes, name=f\"{name}.var\")",
          "mul(mean(square, axes), 7 / 6, name=f\"{name}.var\")", "specialize: update"),
    Fault("dropout does not scale", layers, "graphc.ops.dropout:Dropout.expand",
          "return mul(x, b.apply(op, key, counter, name=f\"{name}.mask\"), name=name)",
          "return mul(x, mul(b.apply(op, key, counter, name=f\"{name}.mask\"), 0.5), name=name)",
          "specialize: output"),
    Fault("dropout drops at inference", layers, "graphc.ops.dropout:Dropout.expand",
          "not train or ", "", "specialize: output"),
    Fault("every step draws the same masks", layers, "passes.specialize:Specialize.__call__",
          "add(counter, 1,", "add(counter, 0,", "specialize: update"),
    Fault("a loss is the sum of its rows", layers, f"{LOSSES}.base:RowLoss.expand",
          "return mean(", "return sum_(", "specialize: output"),
    # Updates.
    Fault("momentum has the wrong sign", layers, f"{OPTIM}.sgd:SGD.update",
          "shared(Momentum, self.momentum)", "shared(Momentum, -self.momentum)",
          "update: update", SGD),
    Fault("biases decay", layers, f"{OPTIM}.optimizer:Optimizer._decays",
          "len(p.shape) >= 2", "True", "update: update", SGD),
    Fault("nesterov steps along the old velocity", layers, f"{OPTIM}.sgd:SGD.update",
          "p, new, g, rate,", "p, velocity, g, rate,", "update: update", NESTEROV),
    Fault("adam does not correct its bias", layers, f"{OPTIM}.adam:Adam._step",
          "AdamStep, self.beta1, self.beta2,", "AdamStep, 0.0, 0.0,", "update: update", ADAM),
    Fault("adamw adds its decay to the gradient", layers, f"{OPTIM}.adam:AdamW.update",
          "self.means(p, g, ()), self.decay_of(p)", "self.means(p, g, self.decay_of(p))",
          "update: update", ADAMW),
    Fault("a schedule is not asked", layers, f"{PASSES}.update:_Rates._named",
          "schedule is None", "True", "update: update", ADAMW),
    Fault("the warm-up goes on in the cosine", layers, "graphc.declare.schedules:Cosine.rate",
          "start + self.warmup", "start", "update: update", ADAMW),
    Fault("updates are not counted", layers, f"{PASSES}.update:_add_updates",
          "b.update(counter,", "(counter,", "update: update", SGD),
    Fault("the norm is that of one gradient", layers, f"{PASSES}.update:clipped_by_norm",
          "total is None", "True", "update: update", CLIPPED),
    Fault("the last parameter is not updated", layers, f"{PASSES}.update:_add_updates",
          "for name, gradient in gradients.items()",
          "for name, gradient in [*gradients.items()][:-1]", "update: state", SGD),
    Fault("a group has the rate of all", layers, f"{PASSES}.update:_Rates.of",
          "group is None or group.lr is None", "True", "update: state", PARTS),
    Fault("the last group counts", layers, f"{OPTIM}.optimizer:Optimizer.group_of",
          "in self.groups if", "in self.groups[::-1] if", "update: update",
          gc.SGD(lr=0.1, groups=[gc.Group("first.*", weight_decay=0.5),
                                 gc.Group("*.weight", weight_decay=0.0)])),
    Fault("the average is of the old weights", layers, f"{PASSES}.update:add_average",
          "b.value(b.updates[p.name])", "p", "update: update", STEADY),
    Fault("averages are not counted", layers, f"{PASSES}.update:count_average",
          "b.update(count,", "(count,", "update: update", STEADY),
    Fault("nadam looks one step behind", layers, f"{OPTIM}.adam:NAdam._shares",
          "ahead=1", "ahead=0", "update: update", STEADY),
    Fault("large gradients pass", layers, f"{PASSES}.update:clipped_by_value",
          "-most, most,", "-2 * most, 2 * most,", "update: update",
          gc.SGD(lr=0.1, clip_value=1e-3)),
    Fault("the rate is fixed at compile time", layers, f"{PASSES}.update:_Rates._named",
          "rate = lr if", "rate = __import__('graphc').ops.source.constant(self._b, start,"
          " self._dtype) if", "update: update", SGD),
    Fault("accumulation keeps the last gradient", layers, f"{PASSES}.update:_add_sums",
          "add(total, gradient,", "add(gradient, 0.0,", "update: update", MANY),
    Fault("accumulated steps are not counted", layers, f"{PASSES}.update:_add_sums",
          "add(steps, 1,", "add(steps, 0,", "update: update", MANY),
    Fault("accumulated sums are not divided", layers, f"{PASSES}.update:_means",
          "div(_sum_of(p), counts[p.dtype], name=mean)", "_sum_of(p)",
          "apply_update: update", MANY),
    Fault("accumulated sums are not cleared", layers, f"{PASSES}.update:apply_graph",
          "_clear(b, [*map(_sum_of, values.values()), _step_counter(b)])",
          "_clear(b, [_step_counter(b)])", "apply_update: update", MANY),
    Fault("accumulated steps are not cleared", layers, f"{PASSES}.update:apply_graph",
          ", _step_counter(b)]", "]", "apply_update: update", MANY),
)
# fmt: on


@pytest.fixture(autouse=True)
def no_fault_stays() -> Iterator[None]:
    """Graphs of single ops are kept; those made by a planted rule must not outlive it."""
    yield
    reference.expanded.cache_clear()
    reference.derivative.cache_clear()


@pytest.mark.one_in(14)
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.what)
def test_a_planted_fault_is_caught(
    fault: Fault, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "graphc.check.validation.reproduce.LIMIT", 0
    )  # what is caught is what is asked
    net = fault.net()
    passes = plant(fault, monkeypatch)
    optimizer = fault.optimizer
    if optimizer is None and isinstance(net, gc.Net) and net.graph().losses:
        optimizer = gc.SGD(lr=0.1)
    with pytest.raises(gc.GraphError) as caught:
        gc.compile(
            net, batch=8, optimizer=optimizer, backend="numpy", passes=passes, validate=tmp_path
        )
    step, _, what = fault.caught.partition(": ")
    if step == "verify":
        assert not isinstance(caught.value, ValidationError)
        assert caught.value.__notes__[0].startswith("in pass ")
    elif step == "rule":  # of another type than its operand: refused before any number
        assert isinstance(caught.value, RuleError) and what in str(caught.value)
    else:
        assert isinstance(caught.value, ValidationError), caught.value
        assert str(caught.value).startswith(f"pass '{step}': {what}")
