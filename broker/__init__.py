"""The post office: queues, registry and HTTP API of Postbote."""

__version__ = "0.1.0"
