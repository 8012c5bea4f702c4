"""The spec: what is wanted. YAML -> typed model -> resolved cloud; reads files and nothing else."""
