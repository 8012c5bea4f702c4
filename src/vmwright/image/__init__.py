"""Ways to make a template: build it from packages, or fetch a cloud image."""
