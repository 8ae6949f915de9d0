"""Runs BentoML projects: reads what their services declare, and serves each service as a pool of its own."""
