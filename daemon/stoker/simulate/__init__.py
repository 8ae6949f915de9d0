"""Replays a recorded load through the daemon's own policies and windows, on a virtual clock."""
