"""Floor 3: HTTP on a unix socket."""
