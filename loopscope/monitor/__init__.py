"""The scale monitor: in our training loop, in yours, in the Hugging Face Trainer."""
