"""What trained models are worth: at every depth, with early exits, beside each other."""
