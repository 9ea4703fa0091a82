"""What a run would take: rows, tokens, operations, memory and time, before it is started."""
