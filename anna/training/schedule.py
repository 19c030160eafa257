"""The learning rate of each step."""


def learning_rate(step: int, total_steps: int, peak: float, warmup_steps: int) -> float:
    """Return the rate of `step`: linear rise to `peak` over the warm-up, then linear fall to zero after the last step.

    Args:
        step: From 0 to total_steps - 1.
        total_steps: > 0.
        peak: Largest rate.
        warmup_steps: >= 0; `peak` is reached at this step.
    """
    if step < warmup_steps:
        return peak * (step + 1) / (warmup_steps + 1)
    return peak * (total_steps - step) / (total_steps - min(warmup_steps, total_steps - 1))
