"""Questions about images, written by a hosted model from what is known of them in words."""
