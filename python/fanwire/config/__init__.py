"""Settings from a TOML file, the environment and options, read into dataclasses. ✗ what any of them means."""
