"""What long runs over many clips share."""
