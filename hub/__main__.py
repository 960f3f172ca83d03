"""`python -m hub` is `messagehub hub`."""

from hub.commands import hub

if __name__ == "__main__":
    hub()
