"""Numbers of tokens that the pipelines pad and cut prompts to."""

# Limits of HunyuanVideoPipeline.encode_prompt, which pads every prompt to them.
LLAMA_TOKENS = 256  # of the prompt, without the template
CLIP_TOKENS = 77
# The image-to-video pipeline cuts the header of the assistant's turn out of the template behind the prompt.
ASSISTANT_TOKENS = 4
