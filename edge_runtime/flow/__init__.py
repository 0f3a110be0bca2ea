"""How things run: components and their health, hand-offs between threads, workers, the line runner."""
