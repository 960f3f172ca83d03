"""Figures, each a ratio against something named that ran in the same run."""
