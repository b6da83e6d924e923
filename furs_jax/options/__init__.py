"""Options: the values that each can have, and a run's own, typed."""
