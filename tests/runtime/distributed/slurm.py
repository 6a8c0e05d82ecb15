"""A Slurm of one node that belongs to a test: its own keys, ports and folders."""

from __future__ import annotations

import os
import random
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.extras import program

_PROGRAMS = ("munged", "slurmctld", "slurmd", "srun", "sinfo", "sbatch")
_PATH = os.pathsep.join((os.environ["PATH"], "/usr/sbin", "/usr/local/sbin"))
_TRIES = 120
"""Seconds in which the node has to be there."""

_CONFIGURATION = """
ClusterName=test
FirstJobId={job}
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/builtin
MailProg=/bin/true
MpiDefault=none
ReturnToService=2
SlurmdParameters=config_overrides
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
NodeName={host} NodeAddr=127.0.0.1 CPUs=4 State=UNKNOWN
PartitionName=all Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> str | None:
    """Why there can be no Slurm here."""
    if os.geteuid() != 0:
        return "slurmd runs as root only"
    absent = [name for name in _PROGRAMS if _program(name) is None]
    return f"Slurm is not installed: no {', '.join(absent)}" if absent else None


@contextmanager
def slurm() -> Iterator[Path]:
    """Run Slurm; its configuration, for SLURM_CONF.  TimeoutError with its logs if it fails."""
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))
    host = socket.gethostname().partition(".")[0]
    configuration = folder / "slurm.conf"
    job = random.randrange(10**6, 10**7)  # MPI libraries name shared memory, which may stay, by it
    with _free_ports(2) as ports:
        text = _CONFIGURATION.format(host=host, ports=ports, folder=folder, job=job)
    configuration.write_text(text)
    (folder / "cgroup.conf").write_text("CgroupPlugin=disabled\n")
    (folder / "munge.key").write_bytes(os.urandom(1024))
    (folder / "munge.key").chmod(0o600)
    for name in ("state", "spool"):
        (folder / name).mkdir()
    files = {name: f"{folder}/munge{name}" for name in (".key", ".socket", ".pid", ".log", ".seed")}
    flags = ("--key-file", "--socket", "--pid-file", "--log-file", "--seed-file")
    munge = [f"{flag}={file}" for flag, file in zip(flags, files.values(), strict=True)]
    commands = [
        ["munged", "--foreground", "--force", *munge],
        ["slurmctld", "-D", "-c", "-f", str(configuration)],
        ["slurmd", "-D", "-f", str(configuration)],
    ]
    running: list[subprocess.Popen[bytes]] = []
    try:
        for command in commands:
            running.append(_started(command, folder, configuration))
            if command[0] == "munged":
                _await((folder / "munge.socket").exists, folder)
        _await(lambda: _idle(configuration), folder)
        yield configuration
    finally:
        for process in reversed(running):
            process.terminate()
        for process in running:
            process.wait(60)
        shutil.rmtree(folder, ignore_errors=True)


def _program(name: str) -> str | None:
    return program(name, _PATH)


def _started(command: list[str], folder: Path, configuration: Path) -> subprocess.Popen[bytes]:
    program = _program(command[0])
    assert program is not None
    environment = {**os.environ, "SLURM_CONF": str(configuration), "PATH": _PATH}
    with (folder / f"{command[0]}.out").open("wb") as said:
        return subprocess.Popen(
            [program, *command[1:]],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            start_new_session=True,
        )


def _idle(configuration: Path) -> bool:
    command = [_program("sinfo") or "", "--noheader", "--format=%T"]
    environment = {**os.environ, "SLURM_CONF": str(configuration)}
    said = subprocess.run(command, env=environment, capture_output=True, text=True)
    return said.stdout.strip() == "idle"


def _await(ready: Callable[[], bool], folder: Path) -> None:
    for _ in range(10 * _TRIES):
        if ready():
            return
        time.sleep(0.1)
    logs = [f"{file.name}:\n{file.read_text()[-2000:]}" for file in folder.glob("*.out")]
    raise TimeoutError("Slurm does not start\n" + "\n".join(logs))


@contextmanager
def _free_ports(count: int) -> Iterator[list[int]]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        yield [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()
