"""The private contract on the wire: decode, call the core, encode."""
