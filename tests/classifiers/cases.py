"""Runs of classifiers, by their options; tests/gan/record.json has their losses and the sums of their weights."""

BASE = ["--data.name", "digits", "--data.labels_per_class", "4", "--data.validation", "20", "--data.pad", "1"]
BASE += ["--network", "WideResNet", "--network.depth", "10", "--network.width", "0.25", "--batch_size", "8"]
BASE += ["--epochs", "1", "--lr_schedule", "constant", "--log_every", "1", "--checkpoint_every", "1"]
BASE += ["--tracker", "null"]
"""Options that all of them have in common."""
NONE = ["--mixup", "null"]
ADVERSARIAL = ["--adversarial.eps", "0.1", "--adversarial.step_size", "0.07", "--adversarial.iterations", "2"]
OTHER = [*NONE, "--network", "PreActResNet", "--network.depth", "18", "--network.width", "0.125"]
SSL = ["--ssl.batch_size", "12"]
MIXED = ["--ssl", "MixupConsistency", *SSL, "--mixup.alpha", "0.1", "--ssl.mixup.alpha", "2"]
CASES: dict[str, list[str]] = {
    "none": NONE,
    "none, preactresnet": [*OTHER, "--network.dropout", "0.2"],
    "none, oliver": [*NONE, "--network", "Oliver", "--network.depth", "10", "--network.width", "0.25"],
    "none, without final norm": [*NONE, "--network.final_norm", "false"],
    "none, bce_softmax, l1": [*NONE, "--loss", "BCESoftmax", "--l1", "0.001"],
    "none, cutout, noise, reflect": [*NONE, "--data.cutout", "3", "--data.noise", "0.1", "--data.border", "reflect"],
    "manifold, whole permutation": [],
    "input, lam a pair": ["--mixup.layers", "[0]", "--mixup.lam_per", "pair", "--mixup.alpha", "0.5"],
    "blocked": ["--mixup.detach", "true"],
    "adversarial": [*NONE, *ADVERSARIAL],
    "adversarial, mixed": ADVERSARIAL,
    "adversarial, mix-attack": [*ADVERSARIAL, "--adversarial.order", "mix-attack", "--adversarial.norm", "l2"],
    "pseudo-label": [*NONE, "--ssl", "PseudoLabel", *SSL, "--ssl.threshold", "0.1"],
    "pi": [*NONE, "--ssl", "PiModel", *SSL, "--ssl.compare", "logits"],
    "pi, weight, official ramp": [
        *(*NONE, "--ssl", "PiModel", *SSL, "--ssl.compare", "probabilities"),
        *("--ssl.weight", "2", "--ssl.ramp_from", "official", "--ssl.ramp_until", "1"),
    ],
    "mean-teacher": [*NONE, "--ssl", "MeanTeacher", *SSL, "--ssl.decay", "0.9"],
    "vat": [*NONE, "--ssl", "VAT", *SSL, "--ssl.eps", "1"],
    "vat-em": [*NONE, "--ssl", "VAT", *SSL, "--ssl.eps", "1", "--ssl.entropy", "0.5", "--ssl.iterations", "2"],
    "Algorithm 1": MIXED,
    "Algorithm 3, logits": [
        *(*MIXED, "--mixup.layers", "[0]"),
        *("--ssl.mixup.layers", "[0]", "--ssl.compare", "logits"),
    ],
}
"""Options by a run's name."""
