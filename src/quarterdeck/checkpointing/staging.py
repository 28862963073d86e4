"""The copy that a save takes of the state: the only thing that the training loop waits for. Used by `saver`.

The memory is kept for the next save: copying into pages that were written before takes a fifth of the time.
From GPUs the copies go to pinned memory, all at once (never run on a GPU here).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from quarterdeck.checkpointing.plain_values import copied
from quarterdeck.checkpointing.safetensors_file import Slot, laid_out, view

if TYPE_CHECKING:
    import torch


class Staging:
    """One snapshot at a time: `begin`, then what is to be copied, then `end`, which copies. What the calls
    returned holds the copy from then up to the next `begin`.
    """

    def __init__(self) -> None:
        self._kept: dict[Any, torch.Tensor] = {}
        self._used: set[Any] = set()
        self._views: tuple[list[Slot], list[torch.Tensor]] = ([], [])
        self._pairs: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._is_whole = True

    def begin(self) -> None:
        if not self._is_whole:  # the copy before came to nothing, and what it leaves is nobody's
            self._kept.clear()
            self._views = ([], [])
        self._is_whole = False
        self._used.clear()
        self._pairs.clear()

    def flat(self, tensors: Mapping[str, torch.Tensor]) -> tuple[list[Slot], torch.Tensor]:
        """All of them in one block of bytes, as a safetensors file has them."""
        import torch

        slots = laid_out(tensors)
        pinned = any(tensor.is_cuda for tensor in tensors.values())
        block = self._memory("flat", (slots[-1].end if slots else 0,), torch.uint8, pinned)
        known, views = self._views
        if known != slots or not views or views[0].data_ptr() != block.data_ptr():
            views = [view(block, slot) for slot in slots]
            self._views = (slots, views)
        self._pairs.extend(zip(views, (tensors[slot.name] for slot in slots), strict=True))
        return slots, block

    def tree(self, key: str, value: Any) -> Any:
        """A copy of nested plain values; tensors that share memory do so no more."""
        return copied(value, lambda tensor, at: self._own((key, *at), tensor))

    def pieces(self, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {name: self._own(("piece", name), tensor) for name, tensor in tensors.items()}

    def end(self) -> None:
        """When it returns the state may change."""
        import torch

        for on_gpu in (True, False):  # those from GPUs go on while the others are copied
            pairs = [pair for pair in self._pairs if pair[1].is_cuda == on_gpu]
            if pairs:
                targets, sources = zip(*pairs, strict=True)
                torch._foreach_copy_(targets, sources, non_blocking=on_gpu)
        for device in {source.device for _, source in self._pairs if source.is_cuda}:
            torch.cuda.current_stream(device).synchronize()
        self._pairs.clear()
        if "flat" not in self._used:
            self._views = ([], [])
        self._kept = {key: memory for key, memory in self._kept.items() if key in self._used}
        self._is_whole = True

    def _own(self, key: Any, tensor: torch.Tensor) -> torch.Tensor:
        memory = self._memory(key, tuple(tensor.shape), tensor.dtype, tensor.is_cuda)
        self._pairs.append((memory, tensor))
        return memory

    def _memory(self, key: Any, shape: Sequence[int], dtype: torch.dtype, pinned: bool) -> torch.Tensor:
        import torch

        kept = self._kept.get(key)
        self._used.add(key)
        if kept is None or (kept.shape, kept.dtype, kept.is_pinned() if pinned else False) != (
            torch.Size(shape), dtype, pinned,
        ):  # fmt: skip
            kept = torch.empty(tuple(shape), dtype=dtype, device="cpu", pin_memory=pinned)
            self._kept[key] = kept
        return kept
