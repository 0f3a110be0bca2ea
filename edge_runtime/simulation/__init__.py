"""The simulated world: belt, phones, sound, and the faults of their devices."""
