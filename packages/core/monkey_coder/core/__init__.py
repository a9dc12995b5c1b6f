"""Gary8D, the heuristic router, and the text analysis that it shares with the engine."""
