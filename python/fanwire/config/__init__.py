"""Settings from a TOML file, the environment and options, read into dataclasses. Not here: what any of them means."""
