"""What training minimises: a placement of cross-entropies over loops, plus penalties on scale."""
