"""Modules of PyTorch go out to ONNX, are trained here, and go back: all as PyTorch trains them.

All is computed in float64.  Dropout and `randn_like` draw here; PyTorch is given the same numbers.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest

import graphc as gc
from graphc.ir.op import Array
from graphc.ir.tensor_type import shape_at
from graphc.onnx import load
from graphc.ops.dropout import Dropout, DropoutMask
from graphc.ops.random_numbers import Noise
from tests.extras import needs
from tests.onnx.torch_modules import MODULES, ROWS, F, Made, torch

safetensors_torch = needs("safetensors.torch")
STEPS, LR, DECAY = 3, 0.05, 0.9

Values = dict[str, Any]


def batch(made: Made) -> Values:
    """Inputs of a module; where there is a mask, a letter 0 is padding, and is not the first."""
    rng = torch.Generator().manual_seed(1)
    found = {}
    for name, (sizes, limit) in made.inputs.items():
        shape = ROWS, *sizes
        if limit:
            found[name] = torch.randint(limit, shape, generator=rng)
        else:
            found[name] = torch.randn(shape, generator=rng, dtype=torch.float64)
        if name == "mask":
            found["x"][:, 0] = 1
            found[name] = (found["x"] != 0).long()
    return found


def exported(module: Any, made: Made, kind: str, path: Path) -> None:
    """Write the module as one would who trains on; `kind` is that of the exporter."""
    given = module.train(), tuple(batch(made).values()), path
    names = {"input_names": [*made.inputs], "output_names": [*made.outputs]}
    if kind == "now":
        shapes = tuple({0: torch.export.Dim("batch")} for _ in made.inputs)
        how = {"optimize": False, "external_data": False, "verbose": False}
        torch.onnx.export(*given, **names, dynamo=True, dynamic_shapes=shapes, **how)
    else:
        torch.onnx.export(
            *given,
            **names,
            dynamo=False,
            dynamic_axes={name: {0: "batch"} for name in (*made.inputs, *made.outputs)},
            training=torch.onnx.TrainingMode.TRAINING,
            do_constant_folding=False,
        )


def labels(name: str, out: Any) -> Any:
    """What the first output shall be, or nothing where the loss needs no more."""
    rng = torch.Generator().manual_seed(2)
    if name in ("vae", "gan"):
        return None
    if name in ("unet", "siamese"):
        return torch.randn(out.shape, generator=rng, dtype=torch.float64)
    return torch.randint(out.shape[1], (ROWS, *out.shape[2:]), generator=rng)


def torch_losses(name: str, given: Values, outs: tuple[Any, ...], y: Any) -> list[Any]:
    if name == "vae":
        out, mu, logvar = outs
        return [F.mse_loss(out, given["x"]) - 0.5 * (1 + logvar - mu**2 - logvar.exp()).mean()]
    if name == "gan":
        ones, zeros = torch.ones_like(outs[0]), torch.zeros_like(outs[0])
        score = F.binary_cross_entropy_with_logits
        return [score(outs[0], ones) + score(outs[1], zeros), score(outs[2], ones)]
    return [(F.cross_entropy if y.dtype == torch.int64 else F.mse_loss)(outs[0], y)]


def declare_losses(name: str, net: gc.Net, made: Made, y: Any) -> None:
    """Declare the same losses in a net that was read."""
    outs = [net[net.graph().outputs[one]] for one in made.outputs]
    if name == "vae":
        out, mu, logvar = outs
        spread = gc.mean(1 + logvar - mu**2 - gc.exp(logvar))
        net.loss("loss", gc.mse_loss(out, net["x"]) - 0.5 * spread)
    elif name == "gan":
        ones, zeros = (gc.broadcast_to(net.constant(one), outs[0].shape) for one in (1.0, 0.0))
        net.loss("d", gc.sigmoid_loss(outs[0], ones) + gc.sigmoid_loss(outs[1], zeros))
        net.loss("g", gc.sigmoid_loss(outs[2], ones))
    else:
        whole = y.dtype == torch.int64
        to = net.input("y", (gc.N, *y.shape[1:]), dtype="int64" if whole else None)
        net.loss("loss", (gc.softmax_loss if whole else gc.mse_loss)(outs[0], to))


def drawn(ex: gc.Executor) -> list[Array]:
    """What dropout multiplies by and noise is in the next step, in the order of the nodes."""
    found = []
    for node in ex.plan.declared:
        op = node.op
        if isinstance(op, Dropout):
            shape = shape_at(node.type.shape, ROWS)
            op = DropoutMask(shape, node.type.dtype, op.keep_prob, op.stream)
        elif isinstance(op, Noise):
            op = type(op.drawn)(shape_at(op.shape, ROWS), op.dtype, op.stream)
        else:
            continue
        found.append(op.reference([ex.state["seed"], ex.state["draws"]]))
    return found


@contextmanager
def given_numbers(numbers: list[Array]) -> Iterator[None]:
    """PyTorch draws these numbers, one after the other."""
    left = iter([torch.tensor(array) for array in numbers])

    def dropped(x: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> Any:
        return x * next(left) if training and p else x

    noise = patch("torch.randn_like", lambda x: next(left))
    with patch("torch.nn.functional.dropout", dropped), noise:
        yield
    assert next(left, None) is None


def optimizers(name: str, module: Any) -> list[Any]:
    parts = [module.D, module.G] if name == "gan" else [module]
    return [torch.optim.SGD(part.parameters(), lr=LR, momentum=DECAY) for part in parts]


def torch_step(name: str, module: Any, sgd: list[Any], given: Values, y: Any) -> float:
    """A step of each optimizer, one after the other; return the sum of the losses before them."""
    total = 0.0
    for i, one in enumerate(sgd):
        outs = module(*given.values())
        losses = torch_losses(name, given, outs if isinstance(outs, tuple) else (outs,), y)
        module.zero_grad()
        losses[i].backward()
        one.step()
        total += losses[i].item()
    return total


def trainer(name: str, net: gc.Net, module: Any, backend: str) -> gc.Executor:
    if name == "gan":
        rules = [
            gc.UpdateRule(loss, wrt, gc.SGD(lr=LR, momentum=DECAY, name=loss))
            for loss, wrt in (("d", "D.*"), ("g", "G.*"))
        ]
        plan = gc.compile(net, batch=ROWS, updates=rules, backend=backend)
    else:
        sgd, there = gc.SGD(lr=LR, momentum=DECAY), {node.name for node in net.graph()}
        every = module.named_parameters(remove_duplicate=False)
        wrt = [key for key, _ in every if key in there]
        plan = gc.compile(net, batch=ROWS, optimizer=sgd, wrt=wrt, backend=backend)
    return gc.Executor(plan, seed=3)


def of_the_batch(array: Array, start: Array, n: int) -> Array:
    """A running variance of PyTorch as if it, too, were that of the batch, not of a sample."""
    kept = DECAY**STEPS * start
    return np.asarray((array - kept) * (n - 1) / n + kept)


def sizes_of_norms(module: Any, given: Values) -> dict[str, int]:
    """How many numbers of each feature a batch norm sees, by the name of its variance."""
    found: dict[str, int] = {}

    def look(key: str) -> Any:
        def hook(norm: Any, args: Any, out: Any) -> None:
            found[f"{key}.running_var"] = args[0].numel() // args[0].shape[1]

        return hook

    kinds = torch.nn.modules.batchnorm._BatchNorm
    norms = [(key, norm) for key, norm in module.named_modules() if isinstance(norm, kinds)]
    hooks = [norm.register_forward_hook(look(key)) for key, norm in norms]
    copy.deepcopy(module).train()(*given.values())
    for hook in hooks:
        hook.remove()
    return found


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["now", "before"])
@pytest.mark.parametrize("name", MODULES)
def test_there_and_back(name: str, kind: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    made = MODULES[name]
    module = made.module().double()
    given = batch(made)
    exported(module, made, kind, tmp_path / "model.onnx")  # one exporter moves running statistics
    blank = copy.deepcopy(module)
    net = load(tmp_path / "model.onnx")
    # Dropout of 0 is left out as that of a model for inference is.
    assert bool(net.for_inference) == (name == "transformer" and kind == "now")
    outs = copy.deepcopy(module).eval()(*given.values())
    y = labels(name, outs[0] if isinstance(outs, tuple) else outs)
    declare_losses(name, net, made, y)
    ex = trainer(name, net, module, "numpy")
    feeds = {key: value.numpy() for key, value in {**given, "y": y}.items() if value is not None}
    sizes, sgd = sizes_of_norms(module, given), optimizers(name, module.train())
    for _ in range(STEPS):
        numbers = drawn(ex)
        loss = ex.step(feeds)
        with given_numbers(numbers):
            wanted = torch_step(name, module, sgd, given, y)
        np.testing.assert_allclose(loss, wanted, rtol=1e-9)

    starts = {key: array.numpy().copy() for key, array in blank.state_dict().items()}
    path = gc.save_torch_state(tmp_path / "back.safetensors", ex, like=blank.state_dict())
    blank.load_state_dict(safetensors_torch.load_file(path), strict=True)
    back = {key: array.numpy() for key, array in blank.state_dict().items()}
    trained = {key: array.detach().numpy() for key, array in module.state_dict().items()}
    for key, array in trained.items():
        near = of_the_batch(array, starts[key], sizes[key]) if key in sizes else array
        np.testing.assert_allclose(back[key], near, rtol=1e-7, atol=1e-12, err_msg=key)

    other = gc.Executor(ex.plan, seed=4)
    gc.load_torch_state(other, module.state_dict())
    module.eval()
    with given_numbers([]) if name != "vae" else patch("torch.randn_like", torch.zeros_like):
        outs = module(*given.values())
    found = other.forward(feeds)
    for one, out in zip(made.outputs, outs if isinstance(outs, tuple) else (outs,), strict=True):
        np.testing.assert_allclose(found[one], out.detach().numpy(), rtol=1e-7, atol=1e-12)
