"""What a page says about audits: cards, tables and figures, one idea a file, made from records alone."""
