"""What a person sees while a command runs and when it has ended.

Begin with `report`, the end of a run; `progress` is what is seen meanwhile.
"""
