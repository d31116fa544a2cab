"""The ``fanwire`` command: one file for each subcommand; ``app.py`` has them all."""
