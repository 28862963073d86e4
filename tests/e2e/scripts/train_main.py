"""As torchrun's tutorials have it: argparse, a main() under the guard, the group made and destroyed."""

import argparse

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="A linear fit")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--lr", type=float, default=0.1)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    torch.manual_seed(0)
    model = DistributedDataParallel(torch.nn.Linear(1, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=args.lr)
    x = torch.linspace(-1, 1, 16).unsqueeze(1) + rank
    for _ in range(args.steps):
        loss = ((model(x) - (3 * x + 1)) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    dist.barrier()
    print(f"train_main: rank {rank} of {dist.get_world_size()}, slope {model.module.weight.item():.1f}")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
