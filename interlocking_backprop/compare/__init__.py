"""Which scheme, and what does it cost: a grid of runs, what they found, and a page that shows it."""
