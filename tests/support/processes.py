"""Two processes of a run, forked from the test's own so that nothing is imported again."""

import multiprocessing
import os
import socket
import traceback
from collections.abc import Callable
from typing import Any

import torch

NUM = 2


def in_processes(function: Callable[..., Any], *args: Any, timeout: float = 120, **kwargs: Any) -> list[Any]:
    """What `function` returned or raised in each process; None for one that was killed."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("fork")
    pipes, running = [], []
    for rank in range(NUM):
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=_run, args=(rank, port, sender, function, args, kwargs))
        process.start()
        sender.close()
        pipes.append(receiver)
        running.append(process)
    found = []
    for process, pipe in zip(running, pipes, strict=True):
        try:
            found.append(pipe.recv() if pipe.poll(timeout) else TimeoutError("the process hangs"))
        except EOFError:
            found.append(None)
        process.join(10)
        if process.is_alive():
            process.kill()
            process.join()
    return found


def _run(rank: int, port: int, sender: Any, function: Callable[..., Any], args: Any, kwargs: Any) -> None:
    os.environ |= {
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(NUM), "RANK": str(rank),
        "LOCAL_RANK": str(rank),
    }  # fmt: skip
    torch.set_num_threads(1)  # makes the pool of threads that was lost in the fork, before several threads want it
    try:
        result = function(*args, **kwargs)
    except BaseException as error:
        if os.environ.get("SHOW"):
            traceback.print_exc()
        result = error
    sender.send(result)
    sender.close()
    os._exit(0)
