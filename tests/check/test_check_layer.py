"""check_layer names each planted fault; a right layer passes."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

import tests.student_layers as student
from graphc.base.errors import GraphError
from graphc.check.check_layer import check_layer

PAIRS = ("affine", "relu", "affine_relu", "batchnorm", "dropout")


def pair(name: str) -> tuple[Any, Any]:
    return getattr(student, f"{name}_forward"), getattr(student, f"{name}_backward")


@pytest.mark.parametrize("name", PAIRS)
def test_right_layers_pass(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    for seed in range(5):
        report = check_layer(name, *pair(name), seed=seed)
        assert report.ok, str(report)
    assert check_layer(name, pair(name)[0]).ok
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("name", ["svm_loss", "softmax_loss"])
def test_right_losses_pass(name: str) -> None:
    for seed in range(5):
        report = check_layer(name, getattr(student, name), seed=seed)
        assert report.ok, str(report)


def test_the_report_of_a_right_layer() -> None:
    assert str(check_layer("affine", *pair("affine"))) == (
        "check_layer affine: ok, out, dx, dw and db agree on 5 inputs"
    )
    assert str(check_layer("relu", student.relu_forward)) == (
        "check_layer relu: ok, out agrees on 4 inputs"
    )


# The five planted faults.


def test_missing_division_by_the_rows() -> None:
    def loss(x: Any, y: Any) -> Any:
        value, dx = student.softmax_loss(x, y)
        return value, dx * len(x)

    assert str(check_layer("softmax_loss", loss)) == (
        "check_layer softmax_loss: wrong in dx\n"
        "  dx[4, 2] is -0.967525, it should be -0.161254 (off by 0.806)\n"
        "    for x (6, 4), y (6,)\n"
        "    likely cause: missing /N: dx is a sum over the rows, not their mean"
    )


def test_a_mask_that_is_not_scaled() -> None:
    def forward(x: Any, param: Any) -> Any:
        if param["mode"] == "test":
            return x, ("test", None)
        mask = student.GENERATOR.random(x.shape) < param["p"]
        return x * mask, ("train", mask)

    assert str(check_layer("dropout", forward, student.dropout_backward)) == (
        "check_layer dropout: wrong in mask\n"
        "  out / x is 1 where an element is kept, it should be 3.33333\n"
        "    for x (200, 50), mode 'train', p 0.3\n"
        "    likely cause: mask not scaled: divide it by p in training"
    )


def test_a_bias_gradient_over_the_wrong_axis() -> None:
    def backward(dout: Any, cache: Any) -> Any:
        dx, dw, _ = student.affine_backward(dout, cache)
        return dx, dw, dout.sum(axis=1)

    assert str(check_layer("affine", student.affine_forward, backward)) == (
        "check_layer affine: wrong in db\n"
        "  db has shape (5,), it should have (3,)\n"
        "    for x (5, 4), w (4, 3), b (3,)\n"
        "    likely cause: the bias gradient is over the wrong axis; "
        "db sums dout over the rows, axis 0"
    )


def test_a_cache_that_is_overwritten() -> None:
    def backward(dout: Any, cache: Any) -> Any:
        cache[cache <= 0] = 0
        cache[cache > 0] = 1
        return dout * cache

    assert str(check_layer("relu", student.relu_forward, backward)) == (
        "check_layer relu: wrong in cache\n"
        "  backward changes an array that the cache holds\n"
        "    for x (4, 5)\n"
        "    likely cause: cache overwritten by backward: work on a copy of what the cache holds"
    )


def test_the_unbiased_variance() -> None:
    def forward(x: Any, gamma: Any, beta: Any, param: Any) -> Any:
        keep, old = param.get("momentum", 0.9), param["running_var"]
        result = student.batchnorm_forward(x, gamma, beta, param)
        if param["mode"] == "train" and len(x) > 1:
            param["running_var"] = keep * old + (1 - keep) * x.var(axis=0, ddof=1)
        return result

    assert str(check_layer("batchnorm", forward, student.batchnorm_backward)) == (
        "check_layer batchnorm: wrong in running_var\n"
        "  running_var[1] is 1.66813, it should be 1.55575 (off by 0.112)\n"
        "    for x (6, 3), gamma (3,), beta (3,), mode 'train'\n"
        "    likely cause: unbiased variance (divided by N - 1) "
        "where the biased one (divided by N) is meant"
    )


def test_findings_of_one_cause_share_its_lines() -> None:
    def backward(dout: Any, cache: Any) -> Any:
        return student.affine_backward(dout, cache[0])

    text = str(check_layer("affine_relu", student.affine_relu_forward, backward))
    first = [re.split(r"[\[ ]", line.strip())[0] for line in text.splitlines()]
    assert first == ["check_layer", "dx", "dw", "db", "for", "likely"]


# More of what students do.


def test_overwritten_arguments() -> None:
    def in_place(x: Any) -> Any:
        x[x < 0] = 0
        return x, x

    def backward(dout: Any, cache: Any) -> Any:
        dout[cache <= 0] = 0
        return dout

    report = check_layer("relu", in_place, student.relu_backward)
    assert "forward overwrites its argument x" in str(report)
    report = check_layer("relu", student.relu_forward, backward)
    assert [finding.what for finding in report.findings] == ["dout"]


def test_a_cache_shared_between_calls() -> None:
    saved: dict[str, Any] = {}

    def forward(x: Any, w: Any, b: Any) -> Any:
        out, saved["cache"] = student.affine_forward(x, w, b)
        return out, saved

    def backward(dout: Any, cache: Any) -> Any:
        return student.affine_backward(dout, cache["cache"])

    report = check_layer("affine", forward, backward)
    assert [finding.what for finding in report.findings] == ["cache"]
    assert "cache overwritten by forward" in report.findings[0].cause


def test_an_unbiased_batchnorm_throughout() -> None:
    def forward(x: Any, gamma: Any, beta: Any, param: Any) -> Any:
        out, cache = student.batchnorm_forward(x, gamma, beta, param)
        if param["mode"] == "test" or len(x) == 1:
            return out, cache
        std = np.sqrt(x.var(axis=0, ddof=1) + param.get("eps", 1e-5))
        xhat = (x - x.mean(axis=0)) / std
        return gamma * xhat + beta, (xhat, std, gamma)

    report = check_layer("batchnorm", forward, student.batchnorm_backward)
    causes = {finding.what: finding.cause for finding in report.findings}
    assert causes.keys() == {"out", "dx", "dgamma"}
    assert causes["out"].startswith("unbiased variance")
    assert causes["dgamma"].startswith("unbiased variance")


def wrong_batchnorm(mistake: str) -> Any:
    def backward(dout: Any, cache: Any) -> Any:
        dx, dgamma, dbeta = student.batchnorm_backward(dout, cache)
        _, std, gamma = cache
        wrong = {
            "constants": (gamma / std * dout, dgamma, dbeta),
            "axis": (dx, dgamma, dout.sum(axis=1)),
        }
        return wrong[mistake]

    return check_layer("batchnorm", student.batchnorm_forward, backward).findings


def test_batchnorm_gradients() -> None:
    (finding,) = wrong_batchnorm("constants")
    assert finding.cause == (
        "the mean and the variance are treated as constants; they depend on x too"
    )
    (finding,) = wrong_batchnorm("axis")
    assert finding.cause == "dbeta is over the wrong axis; it sums over the rows, axis 0"


def test_p_taken_for_the_probability_to_drop() -> None:
    def forward(x: Any, param: Any) -> Any:
        return student.dropout_forward(x, {**param, "p": 1 - param["p"]})

    (finding,) = check_layer("dropout", forward, student.dropout_backward).findings
    assert finding.what == "mask"
    assert finding.cause == "p is used as the probability to drop; it is the probability to keep"


def test_dropout_backward_with_another_mask() -> None:
    def backward(dout: Any, cache: Any) -> Any:
        return dout if cache[0] == "test" else dout * np.roll(cache[1], 1)

    (finding,) = check_layer("dropout", student.dropout_forward, backward).findings
    assert finding.what == "dx"
    assert finding.cause == "the mask is not the one of forward; keep that in the cache"


def test_dropout_that_seeds_itself() -> None:
    def forward(x: Any, param: Any) -> Any:
        if param["mode"] == "test":
            return x, ("test", None)
        mask = (np.random.default_rng(0).random(x.shape) < param["p"]) / param["p"]
        return x * mask, ("train", mask)

    (finding,) = check_layer("dropout", forward, student.dropout_backward).findings
    assert "draw the same mask" in finding.text


@pytest.mark.parametrize("slope", [0, 0.5, 1])
def test_any_relu_gradient_at_zero_between_0_and_1(slope: float) -> None:
    def backward(dout: Any, cache: Any) -> Any:
        return dout * np.where(cache == 0, slope, cache > 0)

    assert check_layer("relu", student.relu_forward, backward).ok


@pytest.mark.parametrize("slope", [-0.1, 1.1])
def test_a_relu_gradient_at_zero_outside(slope: float) -> None:
    def backward(dout: Any, cache: Any) -> Any:
        return dout * np.where(cache == 0, slope, cache > 0)

    (finding,) = check_layer("relu", student.relu_forward, backward).findings
    assert finding.case == "x (5, 6), whole numbers"


def test_an_overflowing_softmax() -> None:
    def loss(x: Any, y: Any) -> Any:
        p = np.exp(x) / np.exp(x).sum(axis=1, keepdims=True)
        rows = np.arange(len(x))
        value = -np.log(p[rows, y]).mean()
        p[rows, y] -= 1
        return value, p / len(x)

    report = check_layer("softmax_loss", loss)
    assert [finding.what for finding in report.findings] == ["loss", "dx"]
    assert all(finding.cause.startswith("exp overflows") for finding in report.findings)


def test_the_log_of_a_softmax_that_has_become_0() -> None:
    def loss(x: Any, y: Any) -> Any:
        p = np.exp(x - x.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        rows = np.arange(len(x))
        value = -np.log(p[rows, y]).mean()
        p[rows, y] -= 1
        return value, p / len(x)

    (finding,) = check_layer("softmax_loss", loss).findings
    assert finding.what == "loss"
    assert finding.cause.startswith("the log of a probability that has become 0")


def test_functions_that_raise_or_give_something_else() -> None:
    def flat_only(x: Any, w: Any, b: Any) -> Any:
        return x.dot(w) + b, (x, w, b)

    report = check_layer("affine", flat_only, student.affine_backward)
    assert [finding.what for finding in report.findings] == ["forward"]
    assert report.findings[0].cause.startswith("x has more than two dimensions; flatten it")
    report = check_layer("relu", lambda x: np.maximum(x, 0))
    assert "forward returns an array of float64, not (out, cache)" in str(report)
    report = check_layer("affine", student.affine_forward, lambda dout, cache: dout)
    assert "backward returns an array of float64, not dx, dw, db" in str(report)
    report = check_layer("affine", student.affine_forward, lambda dout, cache: [dout])
    assert "backward returns 1 value, not dx, dw, db" in str(report)
    report = check_layer("relu", student.relu_forward, lambda dout, cache: None)
    assert "dx is None, it should be an array" in str(report)
    report = check_layer("relu", lambda x: (np.maximum(x, 0) + 0j, x))
    assert "out is an array of complex128, it should be an array of real numbers" in str(report)
    report = check_layer("relu", lambda x: (np.maximum(x, 0) * np.nan, x))
    assert "out[0, 0] is nan, it should be 0\n" in str(report)


def test_arguments_that_are_none_of_a_layer() -> None:
    wrong: Any = ["affine"]
    with pytest.raises(GraphError, match=r"there is no layer \['affine'\]"):
        check_layer(wrong, student.affine_forward)
    with pytest.raises(GraphError, match="forward is None, it must be a function"):
        check_layer("affine", None)  # type: ignore[arg-type]
    with pytest.raises(GraphError, match="backward is 3, it must be a function"):
        check_layer("affine", student.affine_forward, 3)  # type: ignore[arg-type]
    with pytest.raises(GraphError, match="seed is -1, it must be a whole number from 0 up"):
        check_layer("affine", student.affine_forward, seed=-1)


def test_what_there_is_to_check() -> None:
    with pytest.raises(GraphError, match="there is no layer 'conv2d'"):
        check_layer("conv2d", student.affine_forward)
    with pytest.raises(GraphError, match=r"svm_loss is one function that returns \(loss, dx\)"):
        check_layer("svm_loss", student.svm_loss, student.relu_backward)
