"""A program of its own: what workers write to their logs goes to the systemd journal as well."""
