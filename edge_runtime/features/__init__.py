"""Pure functions between what a device delivers and what a model eats."""
