"""What a trained model is worth: at every depth, with early exits, beside others."""
