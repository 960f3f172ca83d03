"""Backups: of one or several databases at one cut, proven, restored, scheduled, thrown away."""
