"""Wrong layers of the course: two students' layers, each with one mistake planted in its source."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from tests.check import course_arrays, course_loops


@dataclass(frozen=True)
class Wrong:
    """A mistake: `old` is `new` in one function, and what its results must be reported as.

    `causes` has the start of the cause of each wrong result; "" if none may be named.
    """

    layer: str
    source: ModuleType
    function: str
    old: str
    new: str
    causes: dict[str, str]

    def functions(self) -> list[Any]:
        """The student's functions, with the mistake."""
        text = inspect.getsource(self.source)
        start = text.index(f"def {self.function}(")
        end = text.find("\ndef ", start)
        end = len(text) if end < 0 else end
        body = text[start:end]
        assert self.old in body, f"{self.function} has no {self.old!r}"
        changed = text[:start] + body.replace(self.old, self.new) + text[end:]
        names: dict[str, Any] = {"__name__": self.source.__name__}
        exec(compile(changed, f"<{self.function}>", "exec"), names)
        if f"{self.layer}_forward" not in names:
            return [names[self.layer]]
        return [names[f"{self.layer}_forward"], names[f"{self.layer}_backward"]]


def loops(function: str, old: str, new: str, **causes: str) -> Wrong:
    return Wrong(_layer(function), course_loops, function, old, new, causes)


def arrays(function: str, old: str, new: str, **causes: str) -> Wrong:
    return Wrong(_layer(function), course_arrays, function, old, new, causes)


def _layer(function: str) -> str:
    return function.removesuffix("_forward").removesuffix("_backward")


WRONG = [
    # affine
    arrays("affine_forward", " + b,", ","),
    arrays("affine_backward", "np.ones(len(dout)) @ dout", "dout.sum(1)"),
    arrays("affine_backward", ".reshape(shape)", ""),
    loops("affine_backward", "db += dout[n]", "db = dout[n]"),
    loops("affine_backward", "return dx, dw, db", "return dx, dw, None"),
    loops("affine_backward", "return dx, dw, db", "return dw, dx, db"),
    loops("affine_backward", "db += dout[n]", "pass"),
    arrays("affine_backward", 'np.einsum("nd,nm->dm", flat, dout)', 'np.einsum("nd,nm->md", flat, dout)'),
    arrays("affine_backward", "np.ones(len(dout)) @ dout", "dout.mean(0)"),
    loops("affine_forward", "return out, (x, w, b)", "pass"),
    loops("affine_backward", "return dx, dw, db", "pass"),
    # relu
    loops("relu_backward", "np.where(cache >= 0, dout, 0)", "dout"),
    loops("relu_backward", "np.where(cache >= 0, dout, 0)", "(cache >= 0) * 1.0"),
    loops("relu_backward", "np.where(cache >= 0, dout, 0)", "np.where(dout > 0, dout, 0)"),
    loops("relu_backward", "np.where(cache >= 0, dout, 0)", "np.where(cache > 0, dout, 2 * dout)"),
    loops("relu_backward", "np.where(cache >= 0, dout, 0)", "np.where(cache < 0, dout, 0)"),
    loops("affine_relu_backward", "dout * (a >= 0)", "dout"),
    loops("affine_relu_backward", "dout * (a >= 0)", "dout * (dout > 0)"),
    loops("affine_relu_forward", "np.maximum(a, 0)", "a"),
    # batchnorm
    arrays("batchnorm_backward", "np.sum(dout * xhat, 0), np.sum(dout, 0)", "np.sum(dout, 0), np.sum(dout * xhat, 0)"),
    arrays("batchnorm_backward", "return dx, dgamma, dbeta", "return dx, dbeta, dgamma"),
    arrays("batchnorm_backward", "return dx, dgamma, dbeta", "return dx, dbeta, dbeta"),
    arrays("batchnorm_backward", "return dx, dgamma, dbeta", "return dx, dgamma, dgamma"),
    loops("batchnorm_backward", "(dout * xhat).sum(axis=0)", "(dout * centred).sum(axis=0)"),
    loops("batchnorm_backward", "dcentred + dmu / N", "dcentred"),
    loops("batchnorm_backward", "+ 2 * centred * dvar / N", ""),
    loops("batchnorm_backward", "0.5 * dstd", "dstd"),
    loops("batchnorm_backward", "dxhat = dout * gamma", "dxhat = dout"),
    loops("batchnorm_backward", "dstd = -(", "dstd = ("),
    loops("batchnorm_forward", "np.sqrt(var + eps)\n        xhat = centred", "np.sqrt(var) + eps\n        xhat = centred"),
    loops("batchnorm_forward", "np.sqrt(var + eps)\n        xhat = centred", "np.sqrt(var)\n        xhat = centred"),
    loops("batchnorm_forward", "np.mean(centred**2, axis=0)", "np.var(x, axis=0, ddof=1)"),
    loops("batchnorm_forward", "momentum * running_var + (1 - momentum) * var", "(1 - momentum) * running_var + momentum * var"),
    loops("batchnorm_forward", 'bn_param["running_mean"] = running_mean', "pass"),
    loops("batchnorm_forward", "xhat = (x - running_mean) / np.sqrt(running_var + eps)", "xhat = (x - x.mean(0)) / np.sqrt(x.var(0) + eps)"),
    arrays("batchnorm_forward", "bn_param.get(\"eps\", 1e-5)", "1e-5"),
    arrays("batchnorm_backward", "np.sum(dout, 0)", "np.sum(dout, 1)"),
    # layernorm
    loops("layernorm_forward", "axis=1", "axis=0"),
    loops("layernorm_backward", "(D * std)", "std"),
    loops("layernorm_backward", "D = dout.shape[1]", "D = dout.shape[0]"),
    arrays("layernorm_backward", "g.mean(1, keepdims=True)", "g.mean(0)"),
    arrays("layernorm_backward", 'np.einsum("nd,nd->d", dout, xhat)', 'np.einsum("nd,nd->n", dout, xhat)'),
    arrays("layernorm_forward", 'ln_param.get("eps", 1e-5)', "0"),
    arrays("layernorm_forward", 'np.sqrt(var + ln_param.get("eps", 1e-5))', 'var'),
    arrays("layernorm_backward", "- g.mean(1, keepdims=True)", ""),
    # dropout
    arrays("dropout_backward", "cache * dout", "cache * dout / 0.3"),
    loops("dropout_backward", "return dout * mask", "return dout * mask / p"),
    loops("dropout_forward", "x * mask, (mode", "x * mask / p, (mode"),
    loops("dropout_backward", "return dout * mask", "return dout * mask * p"),
    loops("dropout_backward", "return dout * mask", "return dout * (np.random.rand(*dout.shape) < p) / p"),
    loops("dropout_backward", "return dout * mask", "return dout * np.random.rand(*dout.shape)"),
    loops("dropout_forward", "< p) / p", "> p) / p"),
    loops("dropout_forward", "< p) / p", "< p)"),
    loops("dropout_forward", "return x, (mode", "return x * p, (mode"),
    # losses
    loops("svm_loss", "y[n]] + 1", "y[n]]"),
    arrays("svm_loss", "+ 1.0", "+ 0.5"),
    arrays("svm_loss", "+ 1.0", "+ 0.3"),
    arrays("svm_loss", "np.where(hit, 0, x - x[hit][:, None] + 1.0)", "x - x[hit][:, None] + 1.0"),
    arrays("svm_loss", "dx / len(x)", "dx"),
    arrays("svm_loss", ".sum(axis=1).mean()", ".mean()"),
    arrays("svm_loss", "over - hit * over.sum(axis=1, keepdims=True)", "over"),
    arrays("softmax_loss", "dx[rows, y] -= 1", "pass"),
    loops("softmax_loss", "loss /= N", "pass"),
    arrays("softmax_loss", "x - np.max(x, axis=1, keepdims=True)", "x"),
    arrays("softmax_loss", "x - np.max(x, axis=1, keepdims=True)", "x - np.max(x)"),
    arrays("softmax_loss", "(np.log(powers.sum(axis=1)) - shifted[rows, y]).mean()", "-np.log(probs[rows, y]).mean()"),
    # convolution
    loops("conv_forward", " + b[f]", ""),
    loops("conv_forward", "i * stride, j * stride", "i, j"),
    loops("conv_backward", "i * stride, j * stride", "i, j"),
    loops("conv_backward", "dw[f] += window", "dw[f] = window"),
    loops("conv_backward", "left : left + WW] += w[f]", "left : left + WW] = w[f]"),
    loops("conv_backward", "dx_pad[:, :, pad : pad + H, pad : pad + W]", "dx_pad[:, :, :H, :W]"),
    loops("conv_backward", "dx_pad[:, :, pad : pad + H, pad : pad + W]", "dx_pad"),
    arrays("conv_backward", "dout.sum((0, 2, 3))", "dout.sum(0)"),
    arrays("conv_backward", "dout.sum((0, 2, 3))", "dout.mean((0, 2, 3))"),
    arrays("conv_forward", 'np.einsum("nchwij,fcij->nfhw", views, w)', 'np.einsum("nchwij,fcij->nfhw", views, w[:, :, ::-1, ::-1])'),
    arrays("conv_forward", "np.pad(x, [(0, 0), (0, 0), (p, p), (p, p)])", 'np.pad(x, [(0, 0), (0, 0), (p, p), (p, p)], mode="edge")'),
    arrays("conv_backward", "dpadded[:, :, rows, columns] +=", "dpadded[:, :, rows, columns] ="),
    arrays("conv_backward", "w[:, :, i, j])", "w[:, :, -1 - i, -1 - j])"),
    loops("conv_backward", "db[f] += dout", "db[f] = dout"),
    # max pool
    loops("max_pool_forward", "np.max(", "np.mean("),
    loops("max_pool_forward", "np.max(x[n, c, top : top + HH, left : left + WW])", "max(0, x[n, c, top : top + HH, left : left + WW].max())"),
    loops("max_pool_forward", "i * stride, j * stride", "i, j"),
    loops("max_pool_forward", 'HH, WW = pool_param["pool_height"], pool_param["pool_width"]', 'WW, HH = pool_param["pool_height"], pool_param["pool_width"]'),
    arrays("max_pool_backward", "hit / hit.sum(axis=(2, 3), keepdims=True)", "hit"),
    arrays("max_pool_backward", "hit / hit.sum(axis=(2, 3), keepdims=True)", "hit * 0 + 1 / (height * width)"),
    arrays("max_pool_backward", "dx[where] +=", "dx[where] ="),
    loops("max_pool_backward", "left + b] += dout", "left + b] = dout"),
    loops("max_pool_backward", "+= dout[n, c, i, j]", "+= 1"),
    loops("max_pool_backward", "i * stride, j * stride", "i, j"),
    loops("max_pool_backward", "np.argmax(window)", "np.argmin(window)"),
    # spatial normalisations
    loops("spatial_batchnorm_forward", "x.transpose(0, 2, 3, 1).reshape(-1, C)", "x.reshape(-1, C)"),
    arrays("spatial_batchnorm_forward", "axes = (0, 2, 3)", "axes = 0"),
    arrays("spatial_batchnorm_backward", "return (gamma * inv)[:, None, None] * slope, dgamma, dbeta", "return (gamma * inv)[:, None, None] * slope, dbeta, dgamma"),
    arrays("spatial_batchnorm_backward", "(dout * xhat).sum(axes)", "(dout * xhat).sum((0, 2))"),
    arrays("spatial_batchnorm_backward", "(gamma * inv)", "inv"),
    loops("spatial_groupnorm_forward", "axis=(2, 3, 4)", "axis=(1, 2, 3, 4)"),
    loops("spatial_groupnorm_forward", "x.reshape(N, G, C // G, H, W)", "x.reshape(N, C // G, G, H, W)"),
    loops("spatial_groupnorm_backward", "(dout * xhat).sum(axis=(0, 2, 3), keepdims=True)", "(dout * xhat).sum(axis=(0, 2, 3))"),
    loops("spatial_groupnorm_backward", "axes = (2, 3, 4)", "axes = (3, 4)"),
    loops("spatial_groupnorm_backward", "(dout * xhat).sum(axis=(0, 2, 3), keepdims=True)", "dbeta"),
    # recurrent steps
    loops("rnn_step_forward", "np.tanh(x.dot(Wx) + prev_h.dot(Wh) + b)", "x.dot(Wx) + prev_h.dot(Wh) + b"),
    loops("rnn_step_forward", "prev_h.dot(Wh)", "prev_h.dot(Wh.T)"),
    loops("rnn_step_forward", " + b)", ")"),
    loops("rnn_step_backward", "(1 - next_h**2)", "(1 - (x @ Wx + prev_h @ Wh + b) ** 2)"),
    loops("rnn_step_backward", "(1 - next_h**2)", "1"),
    loops("rnn_step_backward", "(1 - next_h**2)", "(1 - np.tanh(next_h) ** 2)"),
    loops("rnn_step_backward", "(1 - next_h**2)", "next_h * (1 - next_h)"),
    loops("rnn_step_backward", "da.dot(Wh.T)", "da.dot(Wh)"),
    loops("rnn_step_backward", "prev_h.T.dot(da)", "next_h.T.dot(da)"),
    loops("rnn_step_backward", "x.T.dot(da)", "da.T.dot(x)"),
    loops("rnn_step_backward", "da.sum(axis=0)", "da.sum(axis=1)"),
    loops("rnn_step_backward", "return dx, dprev_h, dWx, dWh, db", "return dx, dprev_h, dWh, dWx, db"),
    loops("rnn_step_backward", "return dx, dprev_h, dWx, dWh, db", "return dx, dprev_h, dWx, dWh"),
    # over time
    loops("rnn_forward", "x[:, t], prev_h", "x[:, t], h0"),
    loops("rnn_forward", "prev_h = h0", "prev_h = np.zeros_like(h0)"),
    loops("rnn_backward", "dh[:, t] + dprev", "dh[:, t]"),
    loops("rnn_backward", "dh[:, t] + dprev", "dh[:, -1] * (t == T - 1) + dprev"),
    loops("rnn_backward", "dWx += dWx_t", "dWx = dWx_t"),
    loops("rnn_backward", "db += db_t", "db = db_t"),
    loops("rnn_backward", "reversed(range(T))", "range(T)"),
    arrays("rnn_backward", "das.insert(0, da)", "das.append(da)"),
    loops("rnn_backward", "return dx, dprev,", "return dx, np.zeros((N, H)),"),
    loops("rnn_backward", "return dx, dprev, dWx, dWh, db", "return dx, dprev, dWx / T, dWh / T, db / T"),
    # lstm
    loops("lstm_step_forward", "o = sigmoid(a[:, 2 * H : 3 * H])\n    g = np.tanh(a[:, 3 * H :])", "g = np.tanh(a[:, 2 * H : 3 * H])\n    o = sigmoid(a[:, 3 * H :])"),
    arrays("_gates", "(1 + np.tanh(k / 2)) / 2 for k in (i, f, o)] + [np.tanh(g)]", "(1 + np.tanh(k / 2)) / 2 for k in (i, f, o, g)]"),
    loops("lstm_step_forward", "o * np.tanh(next_c)", "o * next_c"),
    loops("lstm_step_forward", "f * prev_c + i * g", "i * prev_c + f * g"),
    loops("lstm_step_forward", "f * prev_c + i * g", "prev_c + i * g"),
    loops("lstm_step_backward", "dnext_c + dnext_h * o * (1 - tc**2)", "dnext_h * o * (1 - tc**2)"),
    loops("lstm_step_backward", "dnext_c + dnext_h * o * (1 - tc**2)", "dnext_c"),
    loops("lstm_step_backward", "(1 - tc**2)", "(1 - next_c**2)"),
    loops("lstm_step_backward", "dnext_h * tc", "dnext_h * next_c"),
    loops("lstm_step_backward", "[da_i, da_f, da_o, da_g]", "[da_i, da_f, da_g, da_o]"),
    loops("lstm_step_backward", "dprev_c = dc * f", "dprev_c = dc"),
    loops("lstm_step_backward", "dg * (1 - g**2)", "dg * g * (1 - g)"),
    loops("lstm_step_backward", "df * f * (1 - f)", "df"),
    loops("lstm_step_backward", "df = dc * prev_c", "df = dc * next_c"),
    loops("lstm_step_backward", "da.sum(axis=0)", "np.zeros(da.shape[1])"),
    loops("lstm_backward", "dh[:, t] + dprev_h", "dh[:, t]"),
    loops("lstm_backward", "dnext_h, dprev_c, cache", "dnext_h, 0 * dprev_c, cache"),
    loops("lstm_backward", "dWh += dWh_t", "dWh = dWh_t"),
    loops("lstm_forward", "h0, np.zeros_like(h0)", "h0, h0"),
    # words and losses over time
    loops("word_embedding_backward", "dW[x[n, t]] += dout", "dW[x[n, t]] = dout"),
    arrays("word_embedding_backward", "np.add.at(dW, x, dout)", "dW[x] += dout"),
    loops("temporal_affine_backward", "db += dout[:, t].sum(axis=0)", "db = dout[:, t].sum(axis=0)"),
    arrays("temporal_affine_backward", 'np.einsum("ntm->m", dout)', "dout.sum(0)"),
    arrays("temporal_affine_forward", " + b,", ","),
    arrays("temporal_softmax_loss", "* mask[..., None]", ""),
    arrays("temporal_softmax_loss", "(own * mask)", "own"),
    arrays("temporal_softmax_loss", "N = len(x)", "N = x.shape[0] * x.shape[1]"),
    arrays("temporal_softmax_loss", "N = len(x)", "N = mask.sum()"),
    arrays("temporal_softmax_loss", "np.eye(x.shape[2])[y]", "0"),
]
"""The wrong layers."""
