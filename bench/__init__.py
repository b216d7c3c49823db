"""What we measure, and against what: ratios to bare baselines that run in the same minute."""
