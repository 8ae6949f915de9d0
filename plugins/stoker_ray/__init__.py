"""Driver `ray`: each worker runs where the scheduler of a Ray cluster has found a place for it."""
