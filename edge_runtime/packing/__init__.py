"""A model file from elsewhere becomes a sealed bundle."""
