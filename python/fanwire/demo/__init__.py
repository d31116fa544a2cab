"""The demo: a backend, the relay before it and thousands of clients, each in processes of their own, and a screen."""
