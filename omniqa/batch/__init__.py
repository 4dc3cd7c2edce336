"""Many clips, one question or many, results that survive whatever happens in between."""
