"""The storage contract, behind the ports that `hub.core.ports` declares."""
