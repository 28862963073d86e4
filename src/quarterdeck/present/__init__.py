"""How things are said: failures, sizes, durations, lists of ranks. Pure; used by the kernel, the coordinator
and the agent.
"""
