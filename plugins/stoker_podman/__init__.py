"""Drivers `podman` and `docker`: workers are containers, made and watched through the socket of an API."""
