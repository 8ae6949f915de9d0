"""Floor 0: the nouns. Frozen, slotted values; no I/O, no clock."""
