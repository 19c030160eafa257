from anna.seeding import derive_seed, rng


def test_streams_are_fixed_and_apart() -> None:
    assert derive_seed(17, "train", 0) == 6113238922080367994
    seeds = {derive_seed(root, *keys) for root in (1, 2) for keys in (("a",), ("a", 0), ("a", "0"), ("a0",), ("b",))}
    assert len(seeds) == 10
    assert rng(1, "a").integers(10**9) == rng(1, "a").integers(10**9)
