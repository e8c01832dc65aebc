"""Fair comparisons: the same split, questions, candidates and tuning budget for every model, with error bars."""
