"""Floor 1: the verbs. Pure functions of (values, now)."""
