"""Text to batches: corpora, tokenizers, memory-mapped token files, windows. `config` stays light."""
