"""What every process of the box needs from the system."""
