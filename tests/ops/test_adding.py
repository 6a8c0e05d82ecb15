"""As the pages say, an op of graphc's own is one file, and an optimizer another."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

from graphc.ops import FUNCTIONS
from tests.together import together

ROOT = Path(__file__).resolve().parents[2]

OP = '''"""The gelu by a sigmoid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from graphc.ir.build import apply
from graphc.ops.elementwise import Unary, mul
from graphc.ops.functions import sigmoid
from graphc.ir.expr import call

__all__ = ["gelu2"]


@dataclass(frozen=True)
class Gelu2(Unary):
    """x / (1 + e**(-k*x))."""

    operations = 4
    k: float = 1.702

    def reference(self, ins):
        return np.asarray(ins[0] / (1 + np.exp(-self.k * ins[0]))).astype(ins[0].dtype)

    def scalar(self, ins, axis):
        return ins[0] / (1 + call("exp", -self.k * ins[0]))

    def grad(self, b, ins, out, dout):
        s = sigmoid(mul(ins[0], self.k))
        return (mul(dout, s + ins[0] * self.k * s * (1.0 - s)),)


def gelu2(x, k=1.702, *, name=None):
    """Return x times the sigmoid of k * x."""
    return apply(Gelu2(float(k)), x, name=name)
'''

OPTIMIZER = '''"""Steps of one length."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from graphc.declare.optim.optimizer import Optimizer
from graphc.declare.optim.slots import next_value
from graphc.ops.functions import sign
from graphc.ops.optim import SgdStep

__all__ = ["SignSGD"]


@dataclass(frozen=True, repr=False)
class SignSGD(Optimizer):
    """p = p - lr*sign(g), with decoupled weight decay."""

    lr: float = 0.01

    def update(self, p, g, rate, updates):
        next_value(p, SgdStep(), p, sign(g), rate, *self.decay_of(p))

    def reference(self, u):
        return u.next(u.p - u.rate * (np.sign(u.gradient) + u.decay * u.p))
'''

PROGRAM = """
import sys
import numpy as np
import graphc as gc
from graphc.ir.text import parse_graph
from graphc.ops import OPS

assert gc.__file__.startswith(sys.argv[1]), gc.__file__
assert {"gelu2", "SignSGD"} <= set(gc.__all__)
rows = np.random.default_rng(0).normal(size=(8, 3))
assert gc.check_op(OPS["gelu2"](), [(rows,)]).ok

net = gc.Net("net")
x = net.input("x", (gc.N, 3))
h = gc.gelu2(gc.affine(x, 4, name="a"), name="h")
net.loss("loss", gc.mean(gc.affine(h, 1, name="b") ** 2))
plan = gc.compile(net, batch=8, optimizer=gc.SignSGD(weight_decay=0.1), validate=True,
                  backend="numpy")
ex = gc.Executor(plan, seed=0)
print(ex.step(x=rows) > ex.step(x=rows))
graph = plan.graphs["infer"][0].graph
print(str(parse_graph(str(graph), OPS)) == str(graph), "gelu2(" in str(graph))
gc.save("model.gc", ex)
print(gc.load("model.gc").plan.optimizer)
"""


def test_an_op_and_an_optimizer_are_a_file_each(tmp_path: Path) -> None:
    for name in ("graphc", "passes"):
        ignored = shutil.ignore_patterns("*.pyc.*")  # which others are writing
        shutil.copytree(ROOT / name, tmp_path / name, ignore=ignored)
    (tmp_path / "graphc/ops/gelu2.py").write_text(OP)
    (tmp_path / "graphc/declare/optim/sign_sgd.py").write_text(OPTIMIZER)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[:3] == ["True", "True True", "SignSGD(weight_decay=0.1)"]


def test_type_checkers_know_every_file_that_has_functions_or_optimizers() -> None:
    for init, folder in (
        ("graphc/__init__.py", "graphc/ops"),
        ("graphc/__init__.py", "graphc/declare/optim"),
        ("graphc/declare/optim/__init__.py", "graphc/declare/optim"),
    ):
        text = (ROOT / init).read_text()
        for path in sorted((ROOT / folder).rglob("*.py")):
            if path.name in ("__init__.py", "optimizer.py") or "__all__" not in path.read_text():
                continue
            module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            assert f"    from {module} import *\n" in text, f"{init} does not list {module}"


@together("function", FUNCTIONS.values())
def test_a_function_is_pickled_by_the_name_that_its_file_has(function: object) -> None:
    assert pickle.loads(pickle.dumps(function)) is function


def test_no_two_files_have_a_function_of_one_name() -> None:
    files = [module for name, module in sys.modules.items() if name.startswith("graphc.ops.")]
    names = [name for module in files for name in getattr(module, "__all__", ())]
    assert len(names) == len(FUNCTIONS)
