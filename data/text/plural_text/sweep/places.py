"""Where runs are computed side by side: the cores, GPUs or nodes that this process may use, split.

Owns: how many runs fit, which part each gets. Does not own: the runs. Thread rule: values.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from plural_text.common.errors import UsageError

# Open MPI within a step of srun must not take the whole allocation for its own.
_ALONE = ["bash", "-c", 'unset "${!SLURM_@}" "${!PMI_@}" "${!PMIX_@}"; exec "$@"', "plural"]


@dataclass(frozen=True)
class Place:
    """`prefix`: what commands are started with there. `environment`: variables that they get."""

    prefix: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)


def places(ranks: int, threads: int, asked: int | None) -> list[Place]:
    """A place per run that fits at a time, at most `asked`. Errors: UsageError where `asked` would share
    cores."""
    cores = ranks * threads
    nodes = int(os.environ.get("SLURM_JOB_NUM_NODES") or 1)
    found = _nodes(nodes, cores, ranks) if nodes > 1 else _parts(cores, ranks)
    if asked is not None and asked > len(found):
        raise UsageError(
            f"--jobs {asked}: {len(found)} runs of {ranks} rank(s) x {threads} thread(s) fit here at a time; "
            "lower it, or ranks and threads of the sweep"
        )
    return found[:asked]


def _nodes(nodes: int, cores: int, ranks: int) -> list[Place]:
    """Steps of srun, which places them."""
    first = os.environ.get("SLURM_JOB_CPUS_PER_NODE", "1").partition("(")[0].partition(",")[0]
    on_node = max(1, int(first or 1) // cores)
    words = ["srun", "--exact", "--nodes=1", "--ntasks=1", f"--cpus-per-task={cores}"]
    if gpus := _gpus():
        words.append(f"--gpus={ranks}")
        on_node = max(1, min(on_node, len(gpus) // ranks))
    return [Place((*words, *_ALONE))] * (nodes * on_node)


def _parts(cores: int, ranks: int) -> list[Place]:
    mine = sorted(os.sched_getaffinity(0))
    mine = mine[: max(1, min(len(mine), _granted(len(mine))))]
    count = max(1, len(mine) // cores)
    gpus = _gpus()
    if gpus:
        count = max(1, min(count, len(gpus) // ranks))
    taskset = shutil.which("taskset")
    found = []
    for i in range(count):
        part = mine[i * cores : (i + 1) * cores] or mine
        prefix = (taskset, "--cpu-list", ",".join(map(str, part))) if taskset and count > 1 else ()
        own = ",".join(gpus[i * ranks : (i + 1) * ranks])
        found.append(Place(prefix, {"CUDA_VISIBLE_DEVICES": own} if own else {}))
    return found


def _gpus() -> list[str]:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name for name in visible.split(",") if name.strip()]
    folder = Path("/proc/driver/nvidia/gpus")
    return [str(i) for i in range(len(list(folder.iterdir())))] if folder.is_dir() else []


def _granted(cores: int) -> int:
    """The cores that the control group grants, as containers limit them."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return cores if quota == "max" else max(1, int(quota) // int(period))
    except (OSError, ValueError):
        return cores
