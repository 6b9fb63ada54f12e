"""The engines. Each folder is one backend: a table of functions and a few hooks."""
