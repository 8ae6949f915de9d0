"""One module per command; each has a `command`, imports what is heavy inside it, returns its exit code."""
