"""vmwright: bare KVM hosts to a private cloud, from one YAML file."""

__version__ = "0.1.0"
