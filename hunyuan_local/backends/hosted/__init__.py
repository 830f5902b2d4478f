"""Videos made by WaveSpeedAI or Novita, or by a server that speaks their formats."""
