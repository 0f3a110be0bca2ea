"""Who may ask the box for what."""
