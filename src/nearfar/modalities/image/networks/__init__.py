"""Networks of images without their normalization, by name: conv4, those of timm, and several side by side."""
