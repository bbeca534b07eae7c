"""The study's part of a report: its conditions over their seeds, the headline table, findings and figures."""
