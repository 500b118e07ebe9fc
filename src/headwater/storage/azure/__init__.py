"""Containers of Azure Blob Storage, Data Lake Gen2 included: it answers the same API."""
