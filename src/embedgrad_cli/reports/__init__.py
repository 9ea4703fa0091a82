"""What finished runs left behind, as one HTML file that needs nothing else.

Begin with `run_page`, what a page says of a run; how it looks is in `templates/`, and `write` writes it.
"""
