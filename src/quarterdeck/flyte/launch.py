"""What the runner needs of a config."""

from __future__ import annotations

from typing import Literal, NamedTuple, cast

from quarterdeck.flyte.elastic import NPROC_WORDS, TIMEOUT_S, Elastic
from quarterdeck.flyte.job import PyTorch
from quarterdeck.flyte.rules import ConfigError


class Launch(NamedTuple):
    """What the runner needs to know. `nproc_per_node` None: as the machine has it."""

    nproc_per_node: int | str | None = None
    start_method: Literal["fork", "spawn"] = "fork"
    max_restarts: int = 0
    join_timeout_s: float = float(TIMEOUT_S)
    deadline_s: float | None = None


def launch_of(config: Elastic | PyTorch | None) -> Launch:
    """Raises ConfigError for anything that is no config."""
    if config is None:
        return Launch()
    if not isinstance(config, Elastic | PyTorch):
        raise ConfigError(
            f"{config!r} is not a config: it takes an Elastic or a PyTorch.",
            "Write `@qd.distributed(qd.Elastic(nproc_per_node=2))`.",
        )
    deadline = config.run_policy.active_deadline_seconds if config.run_policy else None
    deadline_s = None if deadline is None else float(deadline)
    if isinstance(config, PyTorch):
        return Launch(nproc_per_node=config.world_size, deadline_s=deadline_s)
    nproc, start = config.nproc_per_node, cast(Literal["fork", "spawn"], config.start_method)
    nproc = nproc if nproc in NPROC_WORDS else int(nproc)
    return Launch(nproc, start, config.max_restarts, config.join_timeout_s, deadline_s)
