"""How the same sums get fast: what the layers compute, reordered for a processor's caches."""
