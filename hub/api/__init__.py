"""The edge of the hub: one servicer for each public service, glue only."""
