"""Checkpoints: model files that also hold where a run of training was.

`gc.load` reads one as it reads any model.  What is added is text and arrays of the run's own,
under the same checksum.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graphc.errors import ModelFileError
from graphc.executor import Executor
from graphc.files.container import read_whole, single, unpack
from graphc.files.graph_file import tensors_named
from graphc.files.model_file import FORMAT, HINT, STATE
from graphc.files.serialize import write_model
from graphc.loc import caller_loc
from graphc.op import Array

_RUN = "run/"


@dataclass(frozen=True)
class CheckpointFile:
    """The state, and what the run has noted: text for JSON and arrays."""

    state: Mapping[str, Array]
    notes: dict[str, Any]
    arrays: dict[str, Array]


def write_checkpoint(
    path: Path, ex: Executor, notes: Mapping[str, Any], arrays: Mapping[str, Array]
) -> None:
    """Write an executor and a run's notes, all or nothing.  ModelFileError where it fails."""
    tensors = {_RUN + name: array for name, array in arrays.items()}
    write_model(path, ex, {"run": json.dumps(notes)}, tensors)


def read_checkpoint(path: Path) -> CheckpointFile:
    """Read one back; ModelFileError for anything but a whole checkpoint of this version."""
    try:
        metadata, tensors = unpack(read_whole(path))
        if metadata.get("format") != f"graphc {FORMAT}" or "run" not in metadata:
            raise ValueError("it is a model, but no checkpoint of this version of graphc")
        notes = json.loads(metadata["run"], object_pairs_hook=single)
    except OSError as error:
        raise ModelFileError(
            f"cannot read {path}: {error.strerror or error}", loc=caller_loc()
        ) from error
    except ValueError as error:
        raise ModelFileError(
            f"{path} is no checkpoint that can be read: {error}", loc=caller_loc(), hint=HINT
        ) from error
    return CheckpointFile(tensors_named(tensors, STATE), notes, tensors_named(tensors, _RUN))
