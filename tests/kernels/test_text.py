"""Kernels as text."""

from __future__ import annotations

from collections.abc import Sequence

from graphc.ir.expr import Axis, BodyBuilder, Broadcast, Expr, call, philox, select
from graphc.ir.op import Op
from graphc.ir.tensor_type import N
from graphc.kernels.kernel import Gemm, Loop
from graphc.kernels.text import kernel_text
from graphc.ops.dropout import DropoutMask
from graphc.ops.elementwise import Mul
from graphc.ops.losses.labels import SoftmaxRows, SoftmaxRowsGrad
from graphc.ops.norm import BatchNormTrain
from graphc.ops.optim import Momentum, SgdStep
from graphc.ops.select import Relu
from tests.together import together


def given(op: Op, operands: Sequence[Expr], axis: Axis = "columns") -> Expr:
    return op.scalar(operands, axis)


def test_batchnorm_relu_dropout() -> None:
    b = BodyBuilder()
    x = b.load("affine_1", "each", "float32")
    gamma, beta = (b.load(f"bn_1.{name}", "column", "float32") for name in ("gamma", "beta"))
    out = given(BatchNormTrain(1e-5), [x, gamma, beta], "rows")
    kept = given(Relu(), [out])
    keys = [b.load("seed", "one", "uint64"), b.load("draws", "one", "int64")]
    mask = given(DropoutMask((N, 100), "float32", 0.8, 77), keys)
    b.store(x.mean("rows"), "bn_1.mean", "column")
    b.store(kept, "relu_1", "each")
    b.store(given(Mul(), [kept, mask]), "dropout_1", "each")
    assert kernel_text(Loop(N, 100, "rows", b.body(), "columns")) == (
        "loop N x 100  float32 reduction=rows partition=columns  given seed, draws\n"
        "  %1[j] = sum(affine_1)\n"
        "  bn_1.mean[j] = %1[j] / N\n"
        "  %2 = affine_1 - bn_1.mean[j]\n"
        "  %3[j] = sum(%2 * %2)\n"
        "  %4 = %2 * (bn_1.gamma[j] / sqrt(%3[j] / N + 1e-05)) + bn_1.beta[j]\n"
        "  relu_1 = select(0 > %4, 0, %4)\n"
        "  dropout_1 = relu_1 * select(philox(seed, draws, stream=77) <= 3435973836, 1.25, 0)\n"
    )


def test_the_update_after_a_product() -> None:
    b = BodyBuilder()
    velocity, weight = (b.load(f"w.{name}", "each", "float32") for name in ("velocity", "value"))
    rate = b.load("hyper.lr", "one", "float32")
    following = given(Momentum(0.9), [velocity, b.product("float32")])
    b.store(following, "w.velocity.next", "each")
    b.store(given(SgdStep(), [weight, following, rate]), "w.next", "each")
    assert kernel_text(
        Gemm(784, 512, N, "x", "dout", True, False, "float32", b.body(), "rows")
    ) == (
        "gemm 784 x 512  float32 partition=rows  product = x.T @ dout over N  given hyper.lr\n"
        "  w.velocity.next = 0.9 * w.velocity + product\n"
        "  w.next = w.value - hyper.lr * w.velocity.next\n"
    )


def test_losses_of_rows() -> None:
    b = BodyBuilder()
    scores, labels = b.load("scores", "each", "float32"), b.load("y", "row", "int32")
    b.store(given(SoftmaxRows(), [scores, labels]), "loss.rows", "row")
    drows = b.load("d_rows", "row", "float32")
    b.store(given(SoftmaxRowsGrad(), [scores, labels, drows]), "d_scores", "each")
    assert kernel_text(Loop(N, 10, "columns", b.body(), "rows")) == (
        "loop N x 10  float32 reduction=columns partition=rows\n"
        "  %1[i] = max(scores)\n"
        "  %2 = scores - %1[i]\n"
        "  %3 = exp(%2)\n"
        "  %4[i] = sum(%3)\n"
        "  %5 = j == int64(y[i])\n"
        "  %6[i] = sum(select(%5, %2, 0))\n"
        "  loss.rows[i] = log(%4[i]) - %6[i]\n"
        "  d_scores = (%3 * (1 / %4[i]) - float32(%5)) * d_rows[i]\n"
    )


def test_a_buffer_that_is_read_is_not_renamed_before_the_end() -> None:
    b = BodyBuilder()
    w = b.load("w", "each", "float32")
    new = w + 1
    b.store(new, "w", "each")
    b.store(new * w, "product", "each")
    assert kernel_text(Loop(1, 5, "columns", b.body(), "columns")) == (
        "loop 1 x 5  float32 partition=columns\n  %1 = w + 1\n  w = %1\n  product = %1 * w\n"
    )


def expressions() -> list[tuple[Expr, str]]:
    b = BodyBuilder()
    x, y, n = (b.load(c, "each", "float32") for c in "xyn")
    k = b.load("k", "each", "int64")
    seed, draws = b.load("seed", "one", "uint64"), b.load("draws", "one", "int64")
    broadcasts: list[Broadcast] = ["row", "column", "one"]
    r, c, o = (b.load("a name", broadcast, "float32") for broadcast in broadcasts)
    return [
        (x + y - n, "x + y - n"),
        (x - (y + n), "x - (y + n)"),
        (x * (y + n) / y, "x * (y + n) / y"),
        (x / (y * n), "x / (y * n)"),
        (-(x + y) * n, "-(x + y) * n"),
        (call("neg", call("neg", x)), "-(-x)"),
        (call("pow", call("pow", x, y), -n), "(x ** y) ** (-n)"),
        (call("pow", -x, 2), "(-x) ** 2"),
        (x + -1.5, "x + (-1.5)"),
        (x * 0.1, "x * 0.1"),
        (call("floor_div", k, 3) + 2**40, "k // 3 + 1099511627776"),
        ((x < y).equals(n >= x), "(x < y) == (n >= x)"),
        (
            call("not", call("and", x < y, call("or", n > 1, x <= 0))),
            "not (x < y and (n > 1 or x <= 0))",
        ),
        (select(call("not_equal", k, 0), x, y), "select(k != 0, x, y)"),
        (call("and", x > 0, b.const(True, "bool")), "x > 0 and true"),
        (x.cast("float64"), "float64(x)"),
        (r + c + o, '"a name"[i] + "a name"[j] + "a name"'),
        (b.index("rows") * b.index("columns"), "i * j"),
        (x / b.size("rows", "float32") / b.size("columns", "float32"), "x / (2*N) / 7"),
        (x / b.dim(3 * N, "float32") / b.dim(N, "float32"), "x / (3*N) / N"),
        (philox(seed, draws, 5).cast("float32"), "float32(philox(seed, draws, stream=5))"),
    ]


@together("number", range(len(expressions())))
def test_expressions(number: int) -> None:
    value, text = expressions()[number]
    value.builder.store(value, "out", value.broadcast)
    body = value.builder.body()
    printed = kernel_text(Loop(2 * N, 7, "columns", body, "none")).splitlines()[1]
    assert printed.split(" = ", 1)[1] == text


def test_long_expressions_are_cut() -> None:
    b = BodyBuilder()
    value = b.load("a_rather_long_name_0", "each", "float32")
    for i in range(1, 20):
        value = value + b.load(f"a_rather_long_name_{i}", "each", "float32")
    b.store(value, "out", "each")
    lines = kernel_text(Loop(N, 7, "columns", b.body(), "rows")).splitlines()
    assert [line.split(" = ")[0].strip() for line in lines[1:]] == ["%1", "%2", "%3", "%4", "out"]
    assert all(len(line) < 120 for line in lines)
    assert lines[2].startswith("  %2 = %1 + a_rather_long_name_4 + ")
