"""The interfaces that a plug-in author implements."""
