"""What trains the models that ship with omniqa; not installed with the package."""
