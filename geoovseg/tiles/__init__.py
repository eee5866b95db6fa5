"""A set of tiles as one scene, and labels cut back to each of them."""
