"""What a technician does on site."""
