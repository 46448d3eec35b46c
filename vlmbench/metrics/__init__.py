"""Metrics: functions of predictions alone, numpy in and numbers out, so that a new one never needs a new run."""
