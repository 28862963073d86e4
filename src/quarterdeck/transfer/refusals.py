"""What the reader is told when a name exists on some ranks only. Used by `transfer.transfer_state`."""

from __future__ import annotations

from quarterdeck.protocol.parts import WorkerNames


def partial_name(name: str, workers: list[WorkerNames], in_notebook: bool) -> str:
    having = [worker.rank for worker in workers if name in worker.names]
    lacking = [worker.rank for worker in workers if name not in worker.names]
    where = f"`%%rank {having[0]}`" if len(having) == 1 else f"`--ranks {_ranges(having)}`"
    cures = [f"run the cell there ({where})", "define it on every rank", f"read it under {_guard(having)}"]
    if in_notebook:
        cures.append(f"`%push {name}` sends the notebook's to every rank")
    cure = "; ".join(cures[:-1]) + f"; or {cures[-1]}"
    return (
        f"`{name}` exists on {_ranks(having)} but not on {_ranks(lacking)}. Nothing was run. Cures: {cure}."
    )


def _guard(ranks: list[int]) -> str:
    return f"`if rank == {ranks[0]}:`" if len(ranks) == 1 else f"`if rank in {tuple(sorted(ranks))}:`"


def _ranks(ranks: list[int]) -> str:
    return f"rank{'s' if len(ranks) > 1 else ''} {_ranges(ranks)}"


def _ranges(ranks: list[int]) -> str:
    """0,2-3"""
    parts: list[list[int]] = []
    for rank in sorted(ranks):
        if parts and rank == parts[-1][-1] + 1:
            parts[-1].append(rank)
        else:
            parts.append([rank])
    return ",".join(str(part[0]) if len(part) == 1 else f"{part[0]}-{part[-1]}" for part in parts)
