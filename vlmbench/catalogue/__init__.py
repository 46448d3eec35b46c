"""What models there are, where their files come from, what they need, and where LoRA goes in them."""
