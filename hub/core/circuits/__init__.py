"""What keeps a broken database from hurting anything else: circuits, retries, and who waits."""
