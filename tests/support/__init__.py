"""What the tests share: real clients in threads, raw sockets, and waiting for a condition with a deadline."""
