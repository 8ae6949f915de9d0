"""Driver `systemd`: each worker is a transient unit of the system's own service manager."""
