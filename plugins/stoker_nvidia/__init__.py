"""Device source: NVIDIA GPUs through NVML, asked in a child process of its own."""
