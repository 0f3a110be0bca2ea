"""Model bundles: what they hold, how they are checked, where they are kept."""
