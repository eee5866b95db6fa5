"""A scene's dense features: one vector a patch, blended over windows, and what words say of them."""
