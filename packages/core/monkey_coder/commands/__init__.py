"""The subcommands of `monkey-coder`; each parses, calls, prints, and returns an exit code."""
