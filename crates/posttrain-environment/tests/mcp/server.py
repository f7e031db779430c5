"""Tools of every kind, served by the official Python package.

    python server.py [PORT]      # over standard streams, or streamable HTTP on this port
"""

import asyncio
import os
import sys

from mcp.server import MCPServer

PORT = int(sys.argv[1]) if len(sys.argv) > 1 else None
server = MCPServer("odd", log_level="ERROR")


@server.tool()
def add(a: int, b: int) -> str:
    """Adds two numbers."""
    return str(a + b)


@server.tool()
def refuse() -> str:
    """Is an error."""
    raise ValueError("not today")


@server.tool()
def long(megabytes: int) -> str:
    """Says a lot."""
    return "x" * (megabytes << 20)


@server.tool()
async def hang() -> str:
    """Never answers."""
    await asyncio.sleep(3600)
    return ""


@server.tool()
def die() -> str:
    """Takes the server down."""
    os._exit(3)


@server.tool()
def process() -> str:
    """Which process answers."""
    return str(os.getpid())


if PORT:
    server.run(transport="streamable-http", port=PORT)
else:
    server.run()
