"""What rounding can do, and the products, norms and sums that the bounds are made of."""
