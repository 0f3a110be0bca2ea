"""A bundle learnt on the box."""
