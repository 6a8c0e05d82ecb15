"""The folder of a recorded run: its files, and the checks by which they are read.

run.json             the choices of fit, the identity of the data, versions and settings
journal              loss and digest of each step
state-<steps>.gc     whole states: the first one, and at most sixteen later ones
changed-<epoch>.gc   what callbacks changed after an epoch
data.gc              the arrays, if they are no larger than 256 MB
"""

from __future__ import annotations

import json
import os
import platform
import re
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from hashlib import sha256
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from graphc.base import __version__
from graphc.base.errors import GraphError, ModelFileError
from graphc.files.container import pack, parsed, read_file, read_whole, unpack
from graphc.files.disk import check_plain, reason, shown, write_atomically
from graphc.files.serialize import CheckpointFile, read_checkpoint
from graphc.ir.op import Array
from graphc.runtime.executor import Executor
from graphc.runtime.members.population import Population
from graphc.train.checkpoints import numbered
from graphc.train.history import Position
from graphc.train.part_files import PartFileSource
from graphc.train.record.journal import Journal
from graphc.train.source import ArraySource, Source

Kind = Literal["arrays", "shards", "function"]
"""The kind of data, in the words of the file format: "shards" are part files."""

_WHOLE = 256 * 2**20
"""The most bytes of an array that is read in full; larger ones are read at _PIECES places."""
_PIECES = 4096
_PIECE = 4096


@dataclass(frozen=True)
class Identity:
    """The identity of data: its kind, a digest (empty for a function), and a description."""

    kind: Kind
    digest: str
    described: str


def identity(source: Source) -> Identity:
    """Return the identity of the data that a source takes its rows from."""
    if isinstance(source, ArraySource):
        text = ", ".join(f"{k} {a.dtype.name}{list(a.shape)}" for k, a in source.arrays.items())
        return Identity("arrays", _digest(_of_arrays(source.arrays)), text)
    if isinstance(source, PartFileSource):
        text = f"{len(source.files)} part files"
        return Identity("shards", _digest(_of_part_files(source.files)), text)
    return Identity("function", "", "batches that code of the user's makes")


def kind_of_run(
    ex: Executor | Population,
    source: Source,
    validation: Source | None,
    class_weight: Mapping[Any, float] | None,
) -> dict[str, Any]:
    """Return, for JSON, the numbers and data that ranks and a resumed run must share.

    The order of rows, which they must share, too, is not included.
    """
    weights = None if class_weight is None else {str(k): float(v) for k, v in class_weight.items()}
    return {
        "class_weight": weights,
        "data": asdict(identity(source)),
        "validation": None if validation is None else asdict(identity(validation)),
        "hyper": {name: np.asarray(number).tolist() for name, number in ex.hyper.items()},
        "precision": ex.plan.precision,
    }


def digest_of(arrays: Iterable[Array]) -> str:
    """Return a digest of the numbers of arrays."""
    return _digest(array.tobytes() for array in arrays)


def _digest(parts: Iterable[bytes | memoryview]) -> str:
    found = sha256()
    for part in parts:
        found.update(part)
    return found.hexdigest()


def _of_arrays(arrays: Mapping[str, Array]) -> Iterator[bytes | memoryview]:
    for name, array in sorted(arrays.items()):
        yield f"{name}\0{array.dtype.str}\0{array.shape}\0".encode()
        if array.nbytes <= _WHOLE:
            yield np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
            continue
        # 16 MB of a large array, spread over it: enough to notice other data, and quick to read.
        for start in np.linspace(0, array.nbytes - _PIECE, _PIECES).astype(np.int64):
            yield _piece(array, int(start))


def _piece(array: Array, start: int) -> bytes:
    """Return bytes from the middle of an array in C order, without a copy of the array."""
    size = array.itemsize
    first, end = start // size, -(-(start + _PIECE) // size)
    skipped = start - first * size
    return array.flat[first:end].tobytes()[skipped : skipped + _PIECE]


def _of_part_files(files: Iterable[Path]) -> Iterator[bytes]:
    """Yield the names, sizes and checksums of the arrays in each archive."""
    for file in files:
        with zipfile.ZipFile(file) as archive:
            for entry in archive.infolist():
                facts = (file.name, entry.filename, entry.file_size, entry.CRC)
                yield "\0".join(map(str, facts)).encode()


VARIABLES = (
    "GRAPHC_VECTOR_BITS",
    "OPENBLAS_NUM_THREADS",
    "OPENBLAS_CORETYPE",
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)
"""The variables that are read when a process begins, and may change the bits of results."""


@dataclass(frozen=True)
class MadeWith:
    """The versions, processor, cores and environment variables of a process."""

    graphc: str
    numpy: str
    llvmlite: str
    backend: str
    processor: str
    cores: int
    variables: dict[str, str]

    def __post_init__(self) -> None:
        texts = [self.graphc, self.numpy, self.llvmlite, self.backend, self.processor]
        known = isinstance(self.variables, dict) and type(self.cores) is int
        texts += self.variables.values() if known else ()
        if not known or not all(isinstance(text, str) for text in texts):
            raise ValueError("its versions and settings are not described as expected")
        if not self.variables.keys() <= set(VARIABLES):
            raise ValueError("it names environment variables that no run depends on")

    def differences(self, other: MadeWith) -> list[str]:
        """Return texts about all settings that differ from the other's."""
        found = [
            f"{name} {mine} and {yours}"
            for name in ("graphc", "numpy", "llvmlite", "backend", "processor", "cores")
            if (mine := getattr(self, name)) != (yours := getattr(other, name))
        ]
        for name in VARIABLES:
            mine, yours = (one.variables.get(name, "unset") for one in (self, other))
            if mine != yours:
                found.append(f"{name} {mine} and {yours}")
        return found


def made_with(backend: str) -> MadeWith:
    """Return the versions and settings of this process."""
    return MadeWith(
        __version__,
        np.__version__,
        _llvmlite(),
        backend,
        _processor(),
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        variables(),
    )


def variables() -> dict[str, str]:
    """Return the values of those VARIABLES that are set."""
    return {name: os.environ[name] for name in VARIABLES if name in os.environ}


def _llvmlite() -> str:
    try:
        return metadata.version("llvmlite")
    except metadata.PackageNotFoundError:
        return "none"


@lru_cache(maxsize=1)
def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = (line.partition(":")[2].strip() for line in file if line.startswith("model n"))
            return next(names, platform.machine())
    except OSError:
        return platform.processor() or platform.machine()


# ------------------------------------------------------------------ the folder

FORMAT = "graphc run 1"
_LARGEST_TEXT = 2**20
_STATE = re.compile(r"state-([0-9]{9,18})\.gc")
_CHANGED = re.compile(r"changed-([0-9]{6,18})\.gc")


@dataclass(frozen=True)
class About:
    """The contents of run.json."""

    choices: dict[str, Any]
    class_weight: list[tuple[int, float]] | None
    data: Identity
    made_with: MadeWith


class RunFolder:
    """The files of a recorded run, by purpose."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.about_path = self.path / "run.json"
        """The path of the description of the run, which is written first."""
        self.journal_path = self.path / "journal"
        self.data_path = self.path / "data.gc"

    def state_path(self, steps: int) -> Path:
        """Return the path of the state after that many steps."""
        return self.path / f"state-{steps:09d}.gc"

    def changed_path(self, epoch: int) -> Path:
        """Return the path of the arrays that callbacks changed after an epoch."""
        return self.path / f"changed-{epoch:06d}.gc"

    def states(self) -> dict[int, Path]:
        """Return the states by number of steps, ascending."""
        return numbered(self.path, _STATE)

    def changes(self) -> dict[int, Path]:
        """Return the files of arrays that callbacks changed, by number of the epoch, ascending."""
        return numbered(self.path, _CHANGED)

    # ------------------------------------------------------------------ writing

    def write_about(self, about: About) -> None:
        """Write the description of the run; raise OSError if that fails."""
        text = json.dumps({"format": FORMAT, **asdict(about)}, indent=1)
        write_atomically(self.about_path, [text.encode()])

    def write_arrays(self, path: Path, arrays: Mapping[str, Array]) -> None:
        """Write arrays by name; raise OSError if that fails."""
        write_atomically(path, pack({}, arrays))

    # ------------------------------------------------------------------ reading

    def about(self) -> About:
        """Return the description of the run; raise ModelFileError if this is not a recorded run."""
        try:
            check_plain(self.about_path)
            size = self.about_path.stat().st_size
            if size > _LARGEST_TEXT:
                raise ValueError(f"its {size:,} bytes do not describe a run")
            return _about(parsed(read_whole(self.about_path)))
        except OSError as error:
            raise ModelFileError(
                f"{shown(self.path)} holds no recorded run: {self.about_path.name}: "
                f"{reason(error)}",
                hint='gc.fit(ex, data, record="run") records one',
            ) from error
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise self._damaged(self.about_path, error) from error

    def journal(self) -> Journal:
        """Return the recorded steps; raise ModelFileError if they cannot be read."""
        return Journal(self.journal_path)

    def state_before(self, step: int) -> Path:
        """Return the newest state from before the step; raise ModelFileError if there is none."""
        found = [path for steps, path in self.states().items() if steps < step]
        if not found:
            raise ModelFileError(
                f"{self.path} has no state from before step {step}",
                hint="files of the folder are missing",
            )
        return found[-1]

    def read_state(self, path: Path) -> tuple[CheckpointFile, Position]:
        """Return a state and its position in the run; raise ModelFileError if it is damaged."""
        file = read_checkpoint(path)
        try:
            at = Position(**file.notes["position"])
            numbers = (at.epoch, at.step, at.steps, at.rows)
            if not all(type(n) is int and n >= 0 for n in numbers):
                raise ValueError("its position is not a place in a run")
            if at.epoch < 1 or at.step > at.steps or path.name != self.state_path(at.steps).name:
                raise ValueError("its position is not the one in its name")
        except (ValueError, KeyError, TypeError) as error:
            raise self._damaged(path, error) from error
        return file, at

    def arrays(self, path: Path) -> dict[str, Array]:
        """Return arrays by name; raise ModelFileError if they cannot be read."""
        data = read_file(path)
        try:
            return unpack(data)[1]
        except ValueError as error:
            raise self._damaged(path, error) from error

    def _damaged(self, path: Path, error: Exception) -> ModelFileError:
        content = error.sentence if isinstance(error, GraphError) else str(error) or repr(error)
        if isinstance(error, KeyError) and not isinstance(error, GraphError):
            content = f"{error.args[0]!r} is missing"
        return ModelFileError(
            f"{path} is not part of a recorded run: {content}",
            hint="the folder is damaged, or of another version of graphc",
        )


def _about(content: Any) -> About:
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(f"it is not of the format {FORMAT!r}")
    choices, data, weights = content["choices"], content["data"], content["class_weight"]
    seed, shuffle, batch = choices["seed"], choices["shuffle"], choices["batch"]
    numbers = type(seed) is int and type(batch) is int and type(shuffle) is bool
    if not numbers or seed < 0 or batch < 1:
        raise ValueError("its choices are not ones that fit takes")
    if data["kind"] not in get_args(Kind) or not all(
        isinstance(value, str) for value in data.values()
    ):
        raise ValueError("its data are of an unknown kind")
    if weights is not None:
        weights = [(_whole(label), float(weight)) for label, weight in weights]
    return About(choices, weights, Identity(**data), MadeWith(**content["made_with"]))


def _whole(value: Any) -> int:
    if type(value) is not int:
        raise ValueError(f"{value!r} is not a class")
    return value
