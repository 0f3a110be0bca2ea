"""Signed updates: models that come from a repository whose signatures this box checks."""
