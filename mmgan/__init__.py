"""GAN training with mixup in the discriminator, after Manifold Mixup (ICLR 2019 submission)."""
