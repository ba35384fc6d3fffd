"""What a trained classifier does on test images: measures, deformed images, and the protocol that takes them all."""
