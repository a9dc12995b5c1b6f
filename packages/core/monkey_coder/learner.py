"""Composition root and loop of the learner process: the only way to torch."""
