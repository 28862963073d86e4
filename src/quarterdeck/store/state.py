"""What the events of a run amount to. Pure; used by readers."""

from __future__ import annotations

from quarterdeck.store.format import TERMINAL, Event, GroupEvent, LoadEvent, OutcomeEvent, StateEvent


class Timeline:
    """Takes a run's events in their order; the same event twice changes nothing."""

    def __init__(self) -> None:
        self.last: StateEvent | None = None
        self.running: StateEvent | None = None
        """The first time it ran."""
        self.group: GroupEvent | None = None
        self.loaded: LoadEvent | None = None
        """The first one whose step is known, else the first."""
        self.attempt = 0
        self._outcomes: dict[int, dict[int, OutcomeEvent]] = {}

    @property
    def ended(self) -> bool:
        return self.last is not None and self.last.state in TERMINAL

    @property
    def attempts(self) -> list[int]:
        """Those in which a rank has ended."""
        return sorted(self._outcomes)

    def take(self, event: Event) -> None:
        self.attempt = max(self.attempt, event.attempt)
        match event:
            case StateEvent():
                self._enter(event)
            case GroupEvent():
                self.group = event
            case LoadEvent():
                self._load(event)
            case OutcomeEvent():
                self._outcomes.setdefault(event.attempt, {})[event.outcome.rank] = event

    def outcomes(self, attempt: int | None) -> list[OutcomeEvent]:
        """By rank; None: of the last attempt."""
        ranks = self._outcomes.get(self.attempt if attempt is None else attempt, {})
        return [ranks[rank] for rank in sorted(ranks)]

    def _load(self, event: LoadEvent) -> None:
        if self.loaded is None or self.loaded.step < 0 <= event.step:
            self.loaded = event

    def _enter(self, event: StateEvent) -> None:
        if self.ended:
            return
        if event.state == "running" and self.running is None:
            self.running = event
        self.last = event
