"""The copy that a save takes of the state: the only thing that the training loop waits for. Used by `saver`.

The memory is kept for the next save: copying into pages that were written before takes a fifth of the time.
From GPUs the copies go to pinned memory, all at once (never run on a GPU here).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from quarterdeck.checkpoints.flat import Slot, laid_out, view
from quarterdeck.checkpoints.values import copied

if TYPE_CHECKING:
    import torch


class Staging:
    """One snapshot at a time: `begin`, then copies, then `end`; what they returned is valid up to the next
    `begin`.
    """

    def __init__(self) -> None:
        self._kept: dict[Any, torch.Tensor] = {}
        self._used: set[Any] = set()
        self._devices: set[torch.device] = set()

    def begin(self) -> None:
        self._used.clear()
        self._devices.clear()

    def flat(self, tensors: Mapping[str, torch.Tensor]) -> tuple[list[Slot], torch.Tensor]:
        """All of them in one block of bytes, as a safetensors file has them."""
        import torch

        slots = laid_out(tensors)
        pinned = any(tensor.is_cuda for tensor in tensors.values())
        block = self._memory("flat", (slots[-1].end if slots else 0,), torch.uint8, pinned)
        for slot in slots:
            self._copy(view(block, slot), tensors[slot.name])
        return slots, block

    def tree(self, key: str, value: Any) -> Any:
        """A copy of nested plain values; tensors that share memory do so no more."""
        return copied(value, lambda tensor, at: self._own((key, *at), tensor))

    def pieces(self, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {name: self._own(("piece", name), tensor) for name, tensor in tensors.items()}

    def end(self) -> None:
        """When it returns the state may change."""
        import torch

        for device in self._devices:
            torch.cuda.current_stream(device).synchronize()
        self._kept = {key: memory for key, memory in self._kept.items() if key in self._used}

    def _own(self, key: Any, tensor: torch.Tensor) -> torch.Tensor:
        memory = self._memory(key, tuple(tensor.shape), tensor.dtype, tensor.is_cuda)
        self._copy(memory, tensor)
        return memory

    def _memory(self, key: Any, shape: Sequence[int], dtype: torch.dtype, pinned: bool) -> torch.Tensor:
        import torch

        kept = self._kept.get(key)
        self._used.add(key)
        if kept is None or (kept.shape, kept.dtype, kept.is_pinned() if pinned else False) != (
            torch.Size(shape), dtype, pinned,
        ):  # fmt: skip
            kept = torch.empty(tuple(shape), dtype=dtype, pin_memory=pinned)
            self._kept[key] = kept
        return kept

    def _copy(self, target: torch.Tensor, source: torch.Tensor) -> None:
        if source.is_cuda:
            self._devices.add(source.device)
        target.copy_(source.detach(), non_blocking=source.is_cuda)
