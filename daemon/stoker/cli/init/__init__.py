"""What `stoker init` finds in a folder, and the first deployment file it makes of that."""
