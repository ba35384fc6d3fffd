"""Classifiers on the mixup core: the paper's supervised side."""
