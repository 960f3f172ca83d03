"""Where an operation goes, and whether it may."""
