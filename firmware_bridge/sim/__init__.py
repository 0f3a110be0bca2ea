"""The simulated controllers and what passes them."""
