"""The schema of one file: its history, its shape, and the scripts that change it."""
