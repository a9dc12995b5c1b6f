"""Quantum Routing Engine: which provider and model should take this task next?"""

__version__ = "0.1.0"
