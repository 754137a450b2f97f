"""Raw bytes both ways, once a WebSocket is agreed on; each side may end its direction while the other goes on."""

from __future__ import annotations

import trio

from node.door.http.wire import Wire


async def tunnel(client: Wire, backend: Wire, idle_s: float, stall_s: float) -> None:
    """Carry bytes until both directions ended, one side broke, or nobody said anything for so long."""
    with trio.move_on_after(idle_s) as quiet:

        async def carry(source: Wire, target: Wire) -> None:
            try:
                while source.buffer or await source.more():
                    quiet.deadline = trio.current_time() + idle_s
                    data = bytes(source.buffer)
                    source.buffer.clear()
                    await target.send(data, stall_s)
                await target.end_sending()
            except trio.BrokenResourceError:
                quiet.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(carry, client, backend)
            nursery.start_soon(carry, backend, client)
