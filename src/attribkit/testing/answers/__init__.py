"""What the loopback gateway answers, one file for each family of endpoints."""
