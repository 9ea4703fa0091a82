"""The method: template, encoded examples, soft prompt, forward, artifact.

From the ground up: `kernels`, `model`, `text`, `prompt`, `objectives`, `passes`; each imports only from those before
it. Begin with `passes.forward`, whose docstring is the idea: every token is computed once.
"""
