"""How things run: components and their health, hand-offs between threads, the worker that is replaced when it hangs."""
