"""Router (default): an asyncio program of its own, one FIFO queue per service."""
