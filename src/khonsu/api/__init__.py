"""The control plane over HTTPS: routes, limits, the OpenAPI document, and the listener that serves them.

The only package that needs asyncio rather than any event loop.
"""
