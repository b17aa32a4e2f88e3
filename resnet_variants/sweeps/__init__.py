"""Which networks are trained and where: runs and their ids, experiments, the local engine."""
