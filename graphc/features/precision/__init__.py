"""Products of factors that are rounded to bfloat16."""
