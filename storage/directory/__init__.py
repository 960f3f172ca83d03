"""A directory of the local disk as the place where backups are kept."""
