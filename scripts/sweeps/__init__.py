"""What `sweep_page.py` is made of."""
