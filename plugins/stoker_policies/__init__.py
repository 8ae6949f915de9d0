"""Scaling policies: concurrency (default), utilization, gpu."""
