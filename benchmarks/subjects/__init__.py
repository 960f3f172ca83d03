"""What is compared: one file per subject."""
