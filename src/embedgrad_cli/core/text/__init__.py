"""From messages and rows to tokens in which the places of the prompt are marked."""
