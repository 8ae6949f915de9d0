"""Driver `podman`: each worker is a container, made and watched through the socket of podman's API."""
