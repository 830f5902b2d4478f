"""Videos made on this machine by one process: the model, the denoising, the file."""
