"""Every message between kernel, coordinator, zygote and workers, as msgspec structs, in a module per channel.
The only truth about the wire.

    kernel  --(one channel per call)-->  coordinator --(agent)-->  zygote (forks, signals, reaps)
                                                         |
                                                         +-->  worker 0..n-1 (one channel each)

Messages are msgpack; nothing here is ever a pickle. Pickled bytes travel as opaque `bytes` fields or blobs,
and only a worker (from its own coordinator) and the kernel (from its own workers) load them.
"""

from typing import Any, Union

from quarterdeck.protocol import kernel, worker, zygote
from quarterdeck.protocol.parts import Message


def _is_message(name: str, item: object) -> bool:
    return not name.startswith("_") and isinstance(item, type) and Message in item.__mro__[1:]


Anything: Any = Union[  # noqa: UP007
    tuple(
        item
        for module in (kernel, worker, zygote)
        for name, item in vars(module).items()
        if _is_message(name, item)
    )
]
"""Every message type; tags tell them apart, so one decoder serves all channels."""
