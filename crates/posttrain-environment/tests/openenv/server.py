"""A guessing game and a server of tools, as OpenEnv environments of the official Python package.

    python server.py PORT guess|tools [SESSIONS] [SECONDS_BETWEEN_PINGS]
"""

import os
import sys

import uvicorn
from fastapi import FastAPI
from fastmcp import FastMCP
from openenv.core.env_server import HTTPEnvServer
from openenv.core.env_server.interfaces import Environment
from openenv.core.env_server.mcp_environment import MCPEnvironment
from openenv.core.env_server.mcp_types import CallToolAction, CallToolObservation
from openenv.core.env_server.types import Action, Observation, State


class Guess(Action):
    number: int


class Hint(Observation):
    hint: str


class Guessing(Environment):
    """Guess a number below 8: what `reset` says, or the seed's. 99 breaks it, 98 takes the server down."""

    SUPPORTS_CONCURRENT_SESSIONS = True

    def __init__(self):
        super().__init__()
        self.wanted = 0
        self.guesses = 0

    def reset(self, seed=None, episode_id=None, wanted=None):
        self.wanted = (seed or 0) % 8 if wanted is None else wanted
        self.guesses = 0
        return Hint(hint="a number below 8")

    def step(self, action):
        if action.number == 99:
            raise RuntimeError("the game is broken")
        if action.number == 98:
            os._exit(3)
        if action.number == 97:
            return Hint(hint="x" * 100_000)
        self.guesses += 1
        if action.number == self.wanted:
            return Hint(hint="right", done=True, reward=1.0)
        return Hint(hint="higher" if action.number < self.wanted else "lower", reward=-0.1)

    @property
    def state(self):
        return State(step_count=self.guesses)


class ToolServer(MCPEnvironment):
    """Adds numbers."""

    SUPPORTS_CONCURRENT_SESSIONS = True

    def __init__(self):
        tools = FastMCP("adds")

        @tools.tool
        def add(a: int, b: int) -> int:
            """Adds two numbers."""
            return a + b

        super().__init__(tools)

    def reset(self, seed=None, episode_id=None):
        return Observation(metadata={"status": "ready"})

    def _step_impl(self, action, **kwargs):
        return Observation(metadata={"error": "no such action"})

    @property
    def state(self):
        return State()


port, kind = int(sys.argv[1]), sys.argv[2]
sessions = int(sys.argv[3]) if len(sys.argv) > 3 else 64
if kind == "guess":
    server = HTTPEnvServer(Guessing, Guess, Hint, max_concurrent_envs=sessions)
else:
    server = HTTPEnvServer(ToolServer, CallToolAction, CallToolObservation, max_concurrent_envs=sessions)
app = FastAPI()
server.register_routes(app)
pings = float(sys.argv[4]) if len(sys.argv) > 4 else 20.0
uvicorn.run(app, host="127.0.0.1", port=port, log_level="error", ws_ping_interval=pings, ws_ping_timeout=pings)
