"""Program -> kernels: the passes, one noun a file. ``pipeline`` reads as their list."""
