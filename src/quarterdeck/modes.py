"""torch's modes are the user's: a default device, a grad or inference mode, modes that see every function.
Here is how quarterdeck's own work with tensors does without them. Used in every process that has torch.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["without_inference_mode", "without_modes"]


@contextmanager
def without_modes() -> Iterator[None]:
    """Inside, tensors are made, copied and loaded as in a process in which nobody has set a mode. Not for
    what calls user code: that has a right to its modes. The default dtype is none of them: ours is always
    given.
    """
    import torch

    with torch._C.DisableTorchFunction(), torch.inference_mode(False), torch.no_grad():
        yield


@contextmanager
def without_inference_mode() -> Iterator[None]:
    """For what lives on: a tensor that is made in inference mode can never be trained with. All other modes
    stay.
    """
    torch: Any = sys.modules.get("torch")
    if hasattr(torch, "inference_mode") and torch.is_inference_mode_enabled():
        with torch.inference_mode(False), torch.no_grad():
            yield
    else:
        yield
