"""What acts on the world: the way of a decision to the reject gate, and the reports that come back."""
