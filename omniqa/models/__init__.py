"""Model families: what each one is, behind one interface."""
