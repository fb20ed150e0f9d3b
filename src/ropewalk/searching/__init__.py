"""`ropewalk search`: one divisor a rotary pair, found by evolution (LongRoPE, arXiv 2402.13753)."""
