import os

# Before torch is imported anywhere: as in the `starling` command, threads must not spin.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from hypothesis import settings

# The same examples on every run and machine; no deadline, because a busy machine is no failure.
settings.register_profile("ci", derandomize=True, deadline=None, database=None)
settings.load_profile("ci")
