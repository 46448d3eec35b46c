"""Public datasets as domains: one reader a layout, and what all of them share."""
