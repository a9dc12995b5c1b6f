"""The engine: strategies state opinions on every candidate, a collapse makes them one decision."""
