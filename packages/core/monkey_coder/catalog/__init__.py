"""The models that may be chosen."""
