"""The method: template, encoded examples, soft prompt, forward, artifact."""
