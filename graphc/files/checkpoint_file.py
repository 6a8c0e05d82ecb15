"""Checkpoints: model files that also hold the progress of a training run.

`gc.load` reads one as it reads any model.  The additional text and arrays of the run are under the
same checksum.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graphc.base.errors import ModelFileError
from graphc.base.loc import caller_loc
from graphc.files.container import parsed, read_whole, single, unpack
from graphc.files.graph_file import tensors_named
from graphc.files.model_file import FORMAT, HINT, STATE, Model
from graphc.files.paths import reason, shown
from graphc.files.serialize import write_model
from graphc.ir.op import Array
from graphc.runtime.executor import Executor

_RUN = "run/"


@dataclass(frozen=True)
class CheckpointFile:
    """The model, its state, and what the run has recorded: notes for JSON, and arrays."""

    model: Model
    state: Mapping[str, Array]
    notes: dict[str, Any]
    arrays: dict[str, Array]


def write_checkpoint(
    path: Path, ex: Executor, notes: Mapping[str, Any], arrays: Mapping[str, Array]
) -> None:
    """Write an executor and a run's notes, all or nothing; raise ModelFileError if that fails."""
    tensors = {_RUN + name: array for name, array in arrays.items()}
    write_model(path, ex, {"run": json.dumps(notes)}, tensors)


def read_checkpoint(path: Path) -> CheckpointFile:
    """Read a checkpoint; raise ModelFileError unless it is a whole one of this version."""
    try:
        data = read_whole(path)
        metadata, tensors = unpack(data)
        if metadata.get("format") != f"graphc {FORMAT}" or not {"run", "model"} <= metadata.keys():
            raise ValueError("it is a model, but not a checkpoint of this version of graphc")
        notes = json.loads(metadata["run"], object_pairs_hook=single)
        said = parsed(metadata["model"])
        model = Model(str(path), metadata["graph"], said, tensors, len(data))
    except OSError as error:
        raise ModelFileError(
            f"cannot read {shown(path)}: {reason(error)}", loc=caller_loc()
        ) from error
    except ValueError as error:
        raise ModelFileError(
            f"{path} cannot be read as a checkpoint: {error}", loc=caller_loc(), hint=HINT
        ) from error
    return CheckpointFile(model, tensors_named(tensors, STATE), notes, tensors_named(tensors, _RUN))
