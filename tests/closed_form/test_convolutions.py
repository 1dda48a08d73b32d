"""Random convolutions as features."""

import numpy as np
import pytest
import torch

from skdl.closed_form.convolutions import THRESHOLD_SERIES, RandomConvolutions, kernels


def series(n=20, n_channels=2, n_steps=40, seed=0):
    x = torch.randn(n, n_channels, n_steps, generator=torch.Generator().manual_seed(seed))
    lengths = torch.randint(15, n_steps + 1, (n,), generator=torch.Generator().manual_seed(seed + 1))
    return x * (torch.arange(n_steps) < lengths[:, None]).unsqueeze(1), lengths


def fitted(n_features=840):
    x, lengths = series()
    return RandomConvolutions(n_features).fit(x, lengths, torch.Generator().manual_seed(0)), x, lengths


def test_kernels_sum_to_zero_and_see_some_channels():
    weight = kernels(5, torch.Generator().manual_seed(0))
    assert weight.shape == (84, 5, 9)
    seen = (weight != 0).any(dim=2).sum(1)
    assert (weight.sum(2) == 0).all() and seen.min() >= 1 and seen.max() > 1
    assert len(torch.unique(kernels(1, torch.Generator().manual_seed(0))[:, 0], dim=0)) == 84


@pytest.mark.parametrize("n_features", [84, 840, 2520])
def test_features_are_shares_and_about_as_many_as_asked_for(n_features):
    convolutions, x, lengths = fitted(n_features)
    features = convolutions.transform(x, lengths)
    assert 0.5 * n_features <= features.shape[1] <= n_features
    assert features.min() >= 0 and features.max() <= 1
    # Thresholds are quantiles of what training series give: all heights are there.
    assert np.histogram(features.mean(0).numpy(), 4, (0, 1))[0].min() > 0


def test_a_feature_is_the_share_of_steps_above_its_threshold():
    convolutions, x, lengths = fitted(84)
    features = convolutions.transform(x, lengths)
    output = torch.nn.functional.conv1d(x[:1], torch.from_numpy(convolutions.weight), padding=4)[0, :, : lengths[0]]
    torch.testing.assert_close(features[0], (output > torch.from_numpy(convolutions.thresholds[0])).float().mean(1))


def test_thresholds_are_those_of_series_that_come_in_turn():
    n = 2 * THRESHOLD_SERIES - 1
    x = torch.randn(n, 1, 40, generator=torch.Generator().manual_seed(0))
    x[1::2] *= 100
    convolutions = RandomConvolutions(84).fit(x, torch.full((n,), 40), torch.Generator().manual_seed(0))
    # Of as many loud series as quiet ones, hardly any share of steps lies between the two.
    assert 0.1 < (np.abs(convolutions.thresholds[0]) > 50).mean() < 0.9


@pytest.mark.filterwarnings("error")
def test_weights_may_lie_in_memory_that_is_not_to_be_written():
    features, x, lengths = fitted()
    expected = features.transform(x, lengths)
    for array in (features.weight, *features.thresholds):
        array.flags.writeable = False
    assert torch.equal(features.transform(x, lengths), expected)


def test_padding_and_company_change_nothing():
    convolutions, x, lengths = fitted()
    features = convolutions.transform(x, lengths)
    longer = torch.nn.functional.pad(x, (0, 30))
    torch.testing.assert_close(convolutions.transform(longer, lengths), features, rtol=0, atol=1e-6)
    alone = convolutions.transform(x[3:4, :, : lengths[3]], lengths[3:4])
    torch.testing.assert_close(alone, features[3:4], rtol=0, atol=1e-6)


def test_short_series_have_features_too():
    x, lengths = torch.randn(5, 1, 3), torch.tensor([3, 2, 1, 3, 3])
    convolutions = RandomConvolutions(84).fit(x, lengths, torch.Generator().manual_seed(0))
    assert torch.isfinite(convolutions.transform(x, lengths)).all()


def test_series_that_stand_still_exceed_no_threshold_by_rounding():
    x = torch.randn(64, 2, 40, generator=torch.Generator().manual_seed(0))
    # Most quantiles are at what still steps give, which is zero but for rounding.
    x[:, :, 12:] = 0.1
    lengths = torch.full((64,), 40)
    convolutions = RandomConvolutions(500).fit(x, lengths, torch.Generator().manual_seed(0))
    shares = convolutions.transform(x, lengths)
    torch.testing.assert_close(convolutions.transform(x * (1 + 1e-7), lengths), shares, rtol=0, atol=1e-6)


def test_small_series_beside_a_few_large_ones_still_differ():
    x = torch.randn(64, 1, 40, generator=torch.Generator().manual_seed(0))
    x[::8] *= 1_000_000
    lengths = torch.full((64,), 40)
    convolutions = RandomConvolutions(500).fit(x, lengths, torch.Generator().manual_seed(0))
    shares = convolutions.transform(x[1:8], lengths[1:8])
    # As if the large ones were not there, but for the quantiles that stand in them.
    assert (shares.std(0) > 0.01).float().mean() > 0.8
