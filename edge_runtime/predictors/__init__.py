"""A bundle becomes something callable."""
