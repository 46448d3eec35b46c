"""A language model as the judge of open answers: what it is asked, how, and what is kept of it."""
