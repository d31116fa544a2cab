"""One server of several processes: a supervisor, which listens, and workers, which accept. Not here: any protocol."""
