"""What one would put together otherwise: other ways from a RabbitMQ queue to a webhook, to measure against."""
