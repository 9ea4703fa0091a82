"""The search for the best text, beside which optimised vectors are measured."""
