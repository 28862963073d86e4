"""Where the processes begin that the kernel starts: the one place where a coordinator meets an agent."""

from __future__ import annotations

from quarterdeck.agent.local import LocalAgent
from quarterdeck.coordinator.main import main


def coordinator(arguments: list[str]) -> None:
    """Entry of the coordinator's process, with the agent of its own node in it."""
    main(arguments, LocalAgent)
