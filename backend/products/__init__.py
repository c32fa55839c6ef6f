"""Products: what an owner sells, which images it has, and what was made of them."""
