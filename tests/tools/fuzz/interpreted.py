"""Run the events of a case on the interpreter of native programs, which compiles nothing.

It runs the fused kernels on the memory that was planned for them, the threads in the worst order,
and is ten times as quick as translating the kernels to machine code.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from graphc.ir.op import Array
from tests.backends.native.interpreted import Interpreted, prepared
from tests.tools.fuzz.case import Case
from tests.tools.fuzz.meaning import cotangent_output

ORDERS = ((0, 1, 2), (2, 1, 0))


def interpret(case: Case) -> list[dict[str, Array]]:
    """The results of each event."""
    return _Interpreter(case).run()


class _Interpreter:
    """The state as it goes from event to event."""

    def __init__(self, case: Case) -> None:
        self.case, self.plan = case, case.plan
        self.state = {name: np.array(array) for name, array in case.state().items()}
        self.order = ORDERS[case.draw % len(ORDERS)]

    def run(self) -> list[dict[str, Array]]:
        results = []
        for number, event in enumerate(self.case.events):
            found = self._event(number, event.kind, event.n)
            found.update({f"state {name}": a.copy() for name, a in self.state.items()})
            results.append(found)
        return results

    def _event(self, number: int, kind: str, n: int) -> dict[str, Array]:
        feeds = self.case.feeds(number)
        if kind in ("infer", "unlabelled", "frozen"):
            return self._program("infer", n, feeds)
        if kind == "step":
            return self._step(n, feeds)
        if kind == "cotangents":
            output = cotangent_output(self.case)
            fed = {**feeds, f"cotangent:{output}": self.case.cotangent(number, output)}
            program = self.plan.cotangent_program((output,))
            run = Interpreted(program, n, {k: v.copy() for k, v in self.state.items()}, self.order)
            run.run(fed)
            found = {f"gradient {name}": array for name, array in run.gradient().items()}
        trained = self._program("grad", n, feeds)
        if kind == "cotangents":
            return found | {k: v for k, v in trained.items() if k.startswith("output ")}
        if kind == "update":
            names = [name for name in trained if name.startswith("gradient ")]
            fed = {f"gradient:{name[9:]}": trained[name] for name in names}
            self._program("apply", 1, fed)
        return trained

    def _step(self, n: int, feeds: Mapping[str, Any]) -> dict[str, Array]:
        every = self.plan.accumulate
        found = self._program("accumulate" if every > 1 else "step", n, feeds)
        if every > 1 and int(self.state["accumulated"]) >= every:
            self._program("apply", 1, {})
        return found

    def _program(self, name: str, n: int, feeds: Mapping[str, Any]) -> dict[str, Array]:
        state = prepared(self.plan, self.state, self.order) if name == "infer" else self.state
        run = Interpreted(self.plan.programs[name], n, state, self.order)
        found = {f"output {name}": array for name, array in run.run(feeds).items()}
        gradients = run.gradient() if name == "grad" else {}
        return found | {f"gradient {name}": array for name, array in gradients.items()}
