"""A simulated world that the real engine routes in, day after day; `docs/reference/simulation.md` describes it."""
