"""The errors that an executor raises before it does anything."""

from __future__ import annotations

from collections.abc import Collection

from graphc.base.errors import FeedError, StateError
from graphc.base.loc import caller_loc
from graphc.ir.numbers import checked_whole


def no_plan(given: object) -> StateError:
    """Return the error for an object that is not a plan."""
    return StateError(
        f"Executor takes a plan, not {type(given).__name__}",
        loc=caller_loc(),
        hint="compile the net first: plan = gc.compile(net, batch=128)",
    )


def no_program(name: str) -> StateError:
    """Return the error for a call whose program the plan does not have."""
    if name == "grad":
        call, reason = "forward(train=True)", "this plan has nothing to train"
        hint = "frozen plans and nets without parameters only infer: leave train=True out"
    else:
        call, reason = "update" if name == "apply" else "step", "the plan has no optimizer"
        hint = "compile with one: gc.compile(net, batch=..., optimizer=gc.SGD(lr=0.1))"
    return StateError(f"{call}: {reason}", loc=caller_loc(), hint=hint)


def no_forward() -> StateError:
    """Return the error for a `backward` without a saved forward pass."""
    return StateError(
        "backward: there is no forward pass to go back through",
        loc=caller_loc(),
        hint="call ex.forward(..., train=True) first; any other run discards it",
    )


def no_losses() -> StateError:
    """Return the error for a `backward` with nothing to differentiate."""
    return StateError(
        "backward: the plan has no gradients",
        loc=caller_loc(),
        hint="declare a loss, or give cotangents: ex.backward(scores=d)",
    )


def no_gradients(accumulates: bool) -> StateError:
    """Return the error for an `update` without gradients."""
    hint = "call ex.backward() first, or pass them: ex.update({name: array})"
    if accumulates:
        hint = "this optimizer accumulates the gradients of steps: call ex.step() first"
    return StateError("update: there are no gradients", loc=caller_loc(), hint=hint)


def accumulates() -> StateError:
    """Return the error for gradients given to an optimizer that accumulates its own."""
    return StateError(
        "update: this optimizer accumulates, so it takes the gradients of its steps",
        loc=caller_loc(),
        hint="leave accumulate out of the optimizer to update by your own gradients",
    )


def checked_seed(seed: int) -> int:
    """Return the seed as an int; raise StateError if it is not a whole number."""
    hint = "gc.Executor(plan, seed=0)"
    return checked_whole("seed", seed, None, hint=hint, error=StateError)


def no_output(missing: Collection[str]) -> FeedError:
    """Return the error for a run whose outputs all need missing inputs, or their number of rows."""
    if not missing:
        return FeedError(
            "no output can be computed: nothing that was fed has rows",
            loc=caller_loc(),
            hint="feed one of the inputs that have a batch dimension",
        )
    return FeedError(
        f"no output can be computed without {', '.join(sorted(missing))}",
        loc=caller_loc(),
        hint=f"feed it by name: {min(missing)}=...",
    )
