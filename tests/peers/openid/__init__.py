"""A real OpenID provider for tests, which also plays an EHR that launches SMART apps."""

from tests.peers.openid.server import OpenIdProvider, openid_provider

__all__ = ["OpenIdProvider", "openid_provider"]
