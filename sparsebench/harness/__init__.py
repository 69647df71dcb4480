"""From a suite file to samples: plan, workers, verification, measurement."""
