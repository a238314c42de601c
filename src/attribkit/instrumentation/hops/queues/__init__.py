"""Queues: an item that was put in a scope brings that scope to the consumer that gets it.

The scope stands beside the queue, never in the item. It comes in force in the consumer's own context, so tasks and
threads that the consumer starts for the item carry it on, and it ends with the next item.

A queue can also be a pool of connections or of keys, and what one tenant put back must not make another's work its own.
So an object that can be closed makes no claim, nor one that comes back under another tenant, nor one that is put by
whoever took from that queue in the same scope; and an item counts only where the code around the `get` is a consumer's.

`rows` and `simple` stand in front of the queues and `notes` tells what passes there; they are all that `instrument()`
loads. The other rooms come with the first item that is put or asked for in a scope: `items` says what one is, `claims`
holds the scopes beside the queues, `consumers` and `batches` what is in force at who gets one or several, `deliveries`
brings it there.
"""
