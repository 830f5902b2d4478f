"""Loading, denoising and decoding. The only folder that imports torch."""
