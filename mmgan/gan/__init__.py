"""GANs trained by Eq. 10-11 of the paper: networks, losses, objective, training loop, sampling."""
