"""What was recorded, looked at again."""
