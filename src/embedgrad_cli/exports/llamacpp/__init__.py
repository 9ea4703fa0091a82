"""What `format=gguf` writes, as llama.cpp and Ollama read it: vocabulary, weights, Modelfile."""
