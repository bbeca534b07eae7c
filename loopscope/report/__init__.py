"""Reports: from result records to one page that works offline. Never loads torch."""
