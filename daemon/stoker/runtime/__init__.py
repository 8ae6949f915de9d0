"""Floor 3: time and I/O. Small loops that wait, ask a pure function, do what it says."""
