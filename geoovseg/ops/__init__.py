"""Pure tensor functions: no model, file or method is imported here."""
