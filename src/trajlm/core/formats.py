"""The formats of the files that a run writes and a report reads, as their `format` says."""

RESULTS_FORMAT = "trajlm.results/1"
GROUP_FORMAT = "trajlm.group/1"
PLAN_FORMAT = "trajlm.plan/1"
REPRODUCTION_FORMAT = "trajlm.reproduction/1"
