"""The SDK's JSON: to and from our records."""
