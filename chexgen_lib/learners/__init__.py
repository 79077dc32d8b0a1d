"""Networks that learn from images and are measured: classifier, segmenter, detector, regressor."""
