from anna.training.schedule import learning_rate


def test_rises_to_the_peak_then_falls_to_zero() -> None:
    rates = [learning_rate(step, 10, 1.0, 2) for step in range(10)]
    assert rates[:3] == [1 / 3, 2 / 3, 1.0]
    assert rates == sorted(rates[:3]) + sorted(rates[3:], reverse=True)
    assert rates[-1] == 0.125
    assert learning_rate(10, 10, 1.0, 2) == 0.0


def test_a_run_shorter_than_its_warm_up_still_has_positive_rates() -> None:
    assert all(learning_rate(step, 2, 1.0, 5) > 0 for step in range(2))
