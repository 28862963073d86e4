"""As elastic's examples have it: `@record`, the rank read from the environment, no destroy at the end."""

import os

import torch
import torch.distributed as dist
from torch.distributed.elastic.multiprocessing.errors import record


@record
def main() -> None:
    local_rank = int(os.environ["LOCAL_RANK"])
    dist.init_process_group(backend="gloo", init_method="env://")
    mine = torch.arange(3, dtype=torch.float32) + local_rank
    everyone = [torch.zeros(3) for _ in range(int(os.environ["WORLD_SIZE"]))]
    dist.all_gather(everyone, mine)
    names: list[object] = [None] * dist.get_world_size()
    dist.all_gather_object(names, f"rank {os.environ['RANK']}")
    print(f"train_recorded: {names} gathered {torch.stack(everyone).sum().item():.0f}")


if __name__ == "__main__":
    main()
