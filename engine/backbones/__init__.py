"""Names of pre-trained vision backbones, and the adapters that turn them into `Backbone`s; imports no torch itself."""
