"""Other libraries' interfaces with fanwire below them, one file each; each needs the library that it stands in for."""
