"""Private: the contract between the hub and its storage servers."""
