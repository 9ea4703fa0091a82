"""The soft prompt, the file that it is saved in, and the text nearest to it."""
