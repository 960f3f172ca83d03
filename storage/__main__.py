"""`python -m storage` is `messagehub storage`."""

from storage.commands import storage

if __name__ == "__main__":
    storage()
