"""Backups of the databases of one storage server: taken, proven, put back."""
