"""What several stages need, pure and lean: transforms, bundles, metrics, histograms, sequential tests."""
