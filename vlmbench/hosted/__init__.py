"""Models behind an OpenAI-compatible endpoint: asked, never loaded."""
