"""Scaling policies: concurrency (default), utilization, gpu, queue, static."""
