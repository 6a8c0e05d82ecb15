"""What an executor refuses before it does anything."""

from __future__ import annotations

from collections.abc import Collection

from graphc.errors import FeedError, StateError
from graphc.loc import caller_loc
from graphc.numbers import checked_whole


def no_plan(given: object) -> StateError:
    """Something else than a plan was given."""
    return StateError(
        f"Executor takes a plan, not {type(given).__name__}",
        loc=caller_loc(),
        hint="compile the net first: plan = gc.compile(net, batch=128)",
    )


def no_program(name: str) -> StateError:
    """The plan has not what a call runs."""
    if name == "grad":
        call, reason = "forward(train=True)", "this plan has nothing to train"
        hint = "frozen plans and nets without parameters only infer: leave train=True out"
    else:
        call, reason = "update" if name == "apply" else "step", "the plan has no optimizer"
        hint = "compile with one: gc.compile(net, batch=..., optimizer=gc.SGD(lr=0.1))"
    return StateError(f"{call}: {reason}", loc=caller_loc(), hint=hint)


def no_forward() -> StateError:
    """Nothing is saved that `backward` could go through."""
    return StateError(
        "backward: there is no forward pass to go back through",
        loc=caller_loc(),
        hint="call ex.forward(..., train=True) first; any other run discards it",
    )


def no_losses() -> StateError:
    """There is nothing to differentiate."""
    return StateError(
        "backward: the plan has no gradients",
        loc=caller_loc(),
        hint="declare a loss, or give cotangents: ex.backward(scores=d)",
    )


def no_gradients(accumulates: bool) -> StateError:
    """There is nothing to update by."""
    hint = "call ex.backward() first, or pass them: ex.update({name: array})"
    if accumulates:
        hint = "this optimizer accumulates the gradients of steps: call ex.step() first"
    return StateError("update: there are no gradients", loc=caller_loc(), hint=hint)


def accumulates() -> StateError:
    """Gradients were given to an optimizer that sums up its own."""
    return StateError(
        "update: this optimizer accumulates, so it takes the gradients of its steps",
        loc=caller_loc(),
        hint="leave accumulate out of the optimizer to update by gradients of your own",
    )


def checked_seed(seed: int) -> int:
    """The seed as an int; StateError for what is no whole number."""
    hint = "gc.Executor(plan, seed=0)"
    return checked_whole("seed", seed, None, hint=hint, error=StateError)


def no_output(missing: Collection[str]) -> FeedError:
    """Every output reads an input that was left out, or depends on how many rows those have."""
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
