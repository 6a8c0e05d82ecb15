"""Every op that has a scalar rule agrees with its reference."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

import graphc as gc
from graphc.ir.expr import BodyBuilder, Broadcast
from graphc.ir.op import Array, Iteration, Layer, Op
from graphc.ir.tensor_type import TensorType, shape_at
from graphc.kernels.interpret import run
from graphc.kernels.iteration_space import broadcast_kind
from graphc.kernels.kernel import Gemm
from graphc.ops import OPS
from graphc.ops.dropout import DropoutMask
from graphc.ops.elementwise import Power
from graphc.ops.functions import LogSoftmax, Sigmoid, Softmax
from graphc.ops.fused import AffineRelu, MatMulReluGrad
from graphc.ops.linalg import Affine, MatMul
from graphc.ops.losses.labels import SoftmaxRows, SoftmaxRowsGrad
from graphc.ops.reduce import Max, MeanGrad, Min
from graphc.ops.select import Clip, Maximum, Minimum, Relu
from graphc.ops.shape import Cast
from tests.ops.example import Example, t, whole
from tests.ops.examples import EXAMPLES
from tests.ops.loops import computed, computed_ways, own_loop, resized
from tests.ops.test_contract import by_op, close
from tests.together import together

SIZES: tuple[dict[int, int], ...] = (
    {},
    {3: 1, 7: 5, 70: 33},
    {3: 17, 7: 37, 70: 16},
    {3: 32, 7: 2, 70: 97},
)
ROWS = (1, 2, 19)

OP_EXAMPLES = [e for e in EXAMPLES if not isinstance(e.op, Layer)]
FUSED = [e for e in OP_EXAMPLES if e.op.iteration(e.types) != "call"]


@pytest.mark.one_in(20)
@pytest.mark.parametrize("examples", by_op(FUSED).values(), ids=by_op(FUSED))
def test_scalar_rule_equals_reference(examples: list[Example]) -> None:
    for sizes in SIZES:
        for example in (resized(e, sizes) for e in examples):
            for n in ROWS:
                ins = example.operands(n)
                wanted = example.concrete(n).reference(ins)
                for found in computed_ways(example.op, example.types, ins, n):
                    assert found.dtype == wanted.dtype, str(example)
                    assert close(found, wanted), f"{example} of {n}: {found} is not {wanted}"


def test_scalar_rule_is_of_the_dtype_of_the_result() -> None:
    for example in FUSED:
        _, value = own_loop(example.op, example.types)
        assert value.dtype == example.op.infer(example.types).dtype, str(example)
        constants = [s for s in value.builder.steps if s.op == "const"]
        kinds = {type(s.value) for s in constants if s.dtype.startswith("float")}
        assert kinds <= {float}, str(example)


ALWAYS_CALLS = {
    "reshape": "no work: another name for the same bytes",
    "stop_gradient": "no work: another name for the same bytes",
    "after": "no work: another name for the same bytes",
    "send": "an exchange with other shards",
    "receive": "an exchange with other shards",
    "total": "a pass makes a send and a receive of it",
    "transpose": "reads other elements than it writes",
    "concat": "reads other elements than it writes",
    "slice": "reads other elements than it writes",
    "slice_grad": "reads other elements than it writes",
    **dict.fromkeys(["gather", "gather_grad", "gather_elements"], "reads where indices say"),
    **dict.fromkeys(["scatter_elements", "last_write"], "writes where indices say"),
    "flat_index": "reads other elements than it writes",
    **dict.fromkeys(["sin", "cos", "tan", "asin", "acos", "atan"], "NumPy's"),
    **dict.fromkeys(["sinh", "cosh", "asinh", "acosh", "atanh", "log1p", "expm1"], "NumPy's"),
    **dict.fromkeys(["mod", "fmod"], "no step has all digits of a remainder"),
    "cumsum": "each element reads all before",
    "topk": "no step sorts",
    "pad": "reads other elements than it writes",
    "conv": "sums over pixels",
    "conv_dx": "sums over pixels",
    "conv_dw": "sums over pixels",
    **dict.fromkeys(["max_pool", "max_pool_index", "max_pool_grad"], "windows of pixels"),
    **dict.fromkeys(["max_pool_pick", "sum_pool", "sum_pool_grad"], "windows of pixels"),
    "matmul": "a Gemm, with an epilogue",
    "affine": "a Gemm, with an epilogue",
    "affine_relu": "a Gemm, with an epilogue",
    "matmul_relu_grad": "a Gemm, with an epilogue",
}
IMAGES = "images: features are neither rows nor columns"
INNER = "an axis that is neither the rows nor all of the columns"
MIDDLE = "an operand repeated along a part of the columns"
SOMETIMES_CALLS = {
    **dict.fromkeys(["batchnorm_train", "batchnorm_dgamma", "batchnorm_dx"], IMAGES),
    **dict.fromkeys(["normalize", "normalize_dgamma", "normalize_dx"], IMAGES),
    **dict.fromkeys(["sum", "mean", "max", "min", "softmax", "log_softmax"], INNER),
    **dict.fromkeys(["argmax", "argmin"], INNER),
    **dict.fromkeys(["add", "sub", "mul", "div", "maximum", "minimum"], MIDDLE),
    **dict.fromkeys(["less", "less_equal", "greater", "greater_equal"], MIDDLE),
    **dict.fromkeys(["equal", "not_equal"], MIDDLE),
    **dict.fromkeys(["floor_div", "trunc_div", "pow"], MIDDLE),
    **dict.fromkeys(["and", "or", "xor", "not"], "the bits of whole numbers"),
    **dict.fromkeys(["broadcast_to", "mean_grad"], "gathered, if repeated along such a part"),
    "band": "stacks, in which the rows of a matrix are a part of the rows",
    "dropout_mask": "a vector, whose elements are rows to Philox",
    **dict.fromkeys(["random_normal", "random_uniform"], "a shard, within words of one counter"),
}


def test_which_ops_have_no_scalar_rule() -> None:
    groups = by_op(OP_EXAMPLES)
    calls = {
        name: [e.op.iteration(e.types) == "call" for e in group] for name, group in groups.items()
    }
    assert {name for name, found in calls.items() if all(found)} == set(ALWAYS_CALLS)
    mixed = {name for name, found in calls.items() if any(found) and not all(found)}
    assert mixed == set(SOMETIMES_CALLS)
    assert set(ALWAYS_CALLS) | set(SOMETIMES_CALLS) <= set(OPS)


# ---------------------------------------------------------------------- hard values


HARD = np.array([[-1e4, 1e4, 0.0], [-np.inf, -800.0, 800.0], [np.nan, 1.0, -1.0]])


@together(
    "op",
    [
        Sigmoid(),
        Softmax(),
        LogSoftmax(),
        Relu(),
        Clip(-0.5, 0.5),
        Clip(-np.inf, 2.0),
        Max((1,)),
        Max((0,)),
        Max((0, 1)),
        Min((1,)),
        Min((0,)),
        Cast("bool"),
        *(Power(e) for e in (0.0, 1.0, 2.0, 3.0, 5.0, 16.0, 17.0, -1.0, 0.5, 1.7)),
    ],
)
def test_hard_values(op: Op) -> None:
    with np.errstate(all="ignore"):
        wanted = op.reference([HARD])
    np.testing.assert_allclose(computed(op, [t(3, 3)], [HARD], 1), wanted, rtol=1e-12)


def test_a_root_below_a_fraction() -> None:
    """Left out above: of minus infinity NumPy's is 0, one over a root is NaN."""
    x = np.array([4.0, 0.25, 0.0, np.inf])
    np.testing.assert_array_equal(computed(Power(-0.5), [t(4)], [x], 1), [0.5, 2.0, np.inf, 0.0])


@pytest.mark.parametrize("op", [Maximum(), Minimum()])
def test_nan_of_either_side_stays(op: Op) -> None:
    ins = [np.array([1.0, np.nan, 2.0]), np.array([np.nan, 1.0, 3.0])]
    np.testing.assert_array_equal(computed(op, [t(3), t(3)], ins, 1), op.reference(ins))


def test_losses_of_scores_that_would_overflow() -> None:
    scores, labels, drows = (
        np.array([[1e4, -1e4, 0], [-np.inf, 3, 4.0]]),
        np.array([1, 2]),
        [2.0, 3],
    )
    types = [t(2, 3), whole(2), t(2)]
    ins: Sequence[Array] = [scores, labels, np.array(drows)]
    for op, count in ((SoftmaxRows(), 2), (SoftmaxRowsGrad(), 3)):
        wanted = op.reference(ins[:count])
        np.testing.assert_allclose(computed(op, types[:count], ins[:count], 1), wanted, rtol=1e-12)


@pytest.mark.parametrize("keep_prob", [2.0**-33, 0.3, 0.999, 1.0])
def test_masks_have_the_bits_of_the_reference(keep_prob: float) -> None:
    keyed = [np.array(2**63 + 5, "uint64"), np.array(2**32 + 3)]
    op = DropoutMask((9, 5, 29), "float32", keep_prob, 2**31 + 7)
    found = computed(op, [whole(dtype="uint64"), whole()], keyed, 1)
    np.testing.assert_array_equal(found, op.reference(keyed))


def test_the_share_of_a_mean_does_not_depend_on_its_position() -> None:
    """A number for each row: in a kernel of many columns, and in one with a single row."""
    op = next(e.op for e in EXAMPLES if isinstance(e.op, MeanGrad) and len(e.op.shape) == 1)
    for axis in ("rows", "columns"):
        b = BodyBuilder()
        value = op.scalar([b.load("dout", "one", "float64")], axis)
        assert [s.value for s in value.builder.steps if s.op == "size"] == [gc.N]


# ---------------------------------------------------------------------- products


PRODUCTS = (Affine, AffineRelu, MatMul, MatMulReluGrad)
MATRICES = [
    e for e in EXAMPLES if isinstance(e.op, PRODUCTS) and all(x.rank == 2 for x in e.types[:2])
]


def as_gemm(op: Op, types: Sequence[TensorType]) -> Gemm:
    assert isinstance(op, PRODUCTS)
    result = op.infer(types)
    trans_a, trans_b = getattr(op, "trans_a", False), getattr(op, "trans_b", False)
    b = BodyBuilder()
    extra = []
    for i, x in enumerate(types[2:], start=2):
        broadcast: Broadcast | None = broadcast_kind(x.shape, result.shape)
        assert broadcast is not None
        extra.append(b.load(f"in{i}", broadcast, x.dtype))
    b.store(op.epilogue(b.product(result.dtype), extra), "out", "each")
    m, n = result.shape
    k = types[0].shape[0 if trans_a else 1]
    return Gemm(m, n, k, "in0", "in1", trans_a, trans_b, result.dtype, b.body(), "rows")


@pytest.mark.parametrize("examples", by_op(MATRICES).values(), ids=by_op(MATRICES))
def test_epilogue_equals_reference(examples: list[Example]) -> None:
    for sizes in SIZES:
        for example in (resized(e, sizes) for e in examples):
            for n in ROWS:
                ins, result = example.operands(n), example.op.infer(example.types)
                arrays = {f"in{i}": x for i, x in enumerate(ins)}
                arrays["out"] = np.empty(shape_at(result.shape, n), result.dtype)
                run(as_gemm(example.op, example.types), arrays, n)
                assert close(arrays["out"], example.concrete(n).reference(ins)), str(example)


def test_the_former_name_of_the_iteration_rule_is_read() -> None:
    """Users wrote ops by it."""

    class Doubled(Op):
        def iteration(self, ins: Sequence[TensorType]) -> Iteration:
            return "elements"

    assert Doubled().iteration([]) == "elements"
