"""A speech server, asked for the box."""
