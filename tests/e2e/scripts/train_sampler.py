"""DistributedDataParallel, DistributedSampler and a sub-group, all at the top level of the script."""

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel as DDP
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.data.distributed import DistributedSampler

dist.init_process_group("gloo")
world = dist.get_world_size()
even = dist.new_group(ranks=list(range(0, world, 2)))

torch.manual_seed(1)
inputs = torch.randn(64, 4)
targets = inputs.sum(dim=1, keepdim=True)
sampler = DistributedSampler(TensorDataset(inputs, targets))
loader = DataLoader(TensorDataset(inputs, targets), batch_size=8, sampler=sampler)
net = DDP(torch.nn.Linear(4, 1))
optimizer = torch.optim.SGD(net.parameters(), lr=0.2)

losses = []
for epoch in range(6):
    sampler.set_epoch(epoch)
    for batch, wanted in loader:
        loss = torch.nn.functional.mse_loss(net(batch), wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())

if dist.get_rank() % 2 == 0:
    dist.all_reduce(torch.ones(1), group=even)
assert losses[-1] < losses[0] / 10
print(f"train_sampler: {len(losses)} steps on {len(sampler)} of {len(inputs)} samples")

dist.destroy_process_group()
