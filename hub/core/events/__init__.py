"""The stream of events: journals read once and told to many, whole and in order."""
