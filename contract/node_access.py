"""What a node may do in Redis, and in RabbitMQ: the rules of its user, written against what it uses.

A node consumes the queues of models and reports to one other; it can't read the other queues, what CPU
workers have in hand, or what it has no name for (no KEYS, no SCAN), and it can neither empty nor configure
the server. Lua is allowed, because kombu gives back a lock by a script: a script may do no more than the user
who calls it.
"""

from typing import Final

from contract.queues import DEFAULT_QUEUE

# What nodes have taken and not yet acknowledged, apart from what CPU workers have
NODE_UNACKED: Final = {
    "unacked_key": "unacked.gpu",
    "unacked_index_key": "unacked_index.gpu",
    "unacked_mutex_key": "unacked_mutex.gpu",
}

_OWN: Final = (
    "~gpu.*",
    *(f"~{key}" for key in NODE_UNACKED.values()),
    "~fanfare:attempts:*",
    "~fanfare:alone:*",
    "~fanfare:result:*",
    "~fanfare:progress:*",
    "~fanfare:previews:*",
    "&/*.celeryev/worker.*",  # signs of life, for Flower
)
_COMMANDS: Final = {
    "to connect": ("auth", "hello", "ping", "select", "client|setinfo", "client|setname"),
    "queues": ("brpop", "lpush", "rpush", "llen"),
    "what is not acknowledged": ("hset", "hget", "hdel", "zadd", "zrem", "zrange"),
    "transactions": ("watch", "unwatch", "multi", "exec"),
    "results, counters, progress": ("get", "set", "expire", "incrby", "decrby"),
    "the lock of who looks for ended leases": ("eval", "evalsha", "script|load", "exists"),
    "heartbeats": ("publish",),
}

_REPORTED_TO: Final = (DEFAULT_QUEUE,)
_PRIORITY: Final = "??[1-9]"  # kombu's separator, two bytes, and a priority

# (commands, keys): what may be done with what belongs to others, each for itself
_OF_OTHERS: Final = (
    (("lpush", "llen"), [f"%W~{queue}{end}" for queue in _REPORTED_TO for end in ("", _PRIORITY)]),
    (  # only ever written: what is sent to a queue by its name asks for no binding
        ("sadd",),
        [
            f"%W~_kombu.{kind}.{queue}"
            for kind in ("binding", "binding_permanent")
            for queue in ("gpu.*", *_REPORTED_TO)
        ],
    ),
    (("hset", "hdel"), ["%W~fanfare:nodes"]),
    (("hset",), ["%W~fanfare:models"]),
    (("get", "mget"), ["%R~fanfare:cancel:*"]),
)


def node_acl(user: str, password_sha256: str) -> str:
    """The user, as one line of an ACL file; with `ACL SETUSER` for its first word, as a command. Redis 7."""
    commands = [f"+{command}" for group in _COMMANDS.values() for command in group]
    selectors = [f"({' '.join([*(f'+{command}' for command in may), *keys])})" for may, keys in _OF_OTHERS]
    return " ".join(["user", user, "reset", "on", f"#{password_sha256}", *_OWN, *commands, *selectors])


# RabbitMQ's three regular expressions, and the queues that it may send to through their exchange
NODE_CONFIGURE: Final = r"^(gpu(\..+)?|celeryev)$"
NODE_WRITE: Final = r"^(gpu(\..+)?|fanfare|celeryev)$"
NODE_READ: Final = r"^gpu(\..+)?$"
NODE_TOPICS: Final = rf"^({'|'.join(_REPORTED_TO)})$"
