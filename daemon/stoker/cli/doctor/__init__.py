"""What `stoker doctor` looks at: one module per group of checks, listed in `registry`."""
