"""The forms in which other programs take a prompt: a module for each, named like `format=NAME`.

Each has `write(artifact, config, folder)`: it fills an empty folder and returns a line that says what is in it.
"""
