"""The learner as a child of `serve`: started, watched, started again, and ended with it."""
