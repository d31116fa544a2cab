"""Sources: what others write elsewhere is published to channels, with the place kept up to which that was done."""
