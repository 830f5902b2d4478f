"""The model itself: loading, denoising, decoding. The only folder that imports torch."""
