"""Router (default): a program of its own that carries requests to workers, queues them and measures load.

The daemon is never on the path of a request. `ProgramLink` (`link.py`, in the daemon) starts the program in
a session of its own, sends it the routing table over a unix socket and hears what it measures; the program
(`python -m stoker_router`) serves on when the daemon dies, and the next daemon finds it by its socket.

Laws, each held by a test in `tests/plugins/router`:

1.  A worker never has more requests at a time than its `concurrency`. What is over waits in one FIFO queue
    per service and goes to the least loaded worker, of equals to the one that was picked longest ago.
2.  No request is lost because the table changed. A draining worker, or one that left the table, finishes
    what it has and gets nothing new; when it has nothing left, `drained` is said once.
3.  A request is sent again only if that is safe: nothing of it was sent yet (any method, until its time is
    over), or nothing of an answer had come and the retry policy allows it (at most five times; its bytes
    are kept up to 1 MiB). It keeps its place in the queue by its time of arrival.
4.  Requests wait for a service without workers, and the daemon hears of the first at once (`demand`). They
    wait at most `timeout`, which also bounds the time until an answer begins (504). A full queue is 503
    with Retry-After, so is a service that is held; too many requests at once are 429. A worker that breaks
    off or says nonsense is 502. The body of each is `{"error": "..."}`, for a browser a page.
5.  Bytes pass as they come, in both directions, with back-pressure; nothing is buffered to its end. A
    client that goes away, or only closes its sending side, has its worker's connection closed at once.
6.  Heads are checked to the letter of RFC 9112 and anything ambiguous is refused, never repaired.
7.  The books are exact and balance: arrivals = answers + in flight + queued; mean concurrency comes from
    time integrals, nothing is sampled. While no daemon listens nothing is lost: its first sample covers the
    gap.
8.  At rest nothing runs: there is a timer only while there is something to wait for.
9.  No orphan: without daemon and routes, or when the state directory is gone, the program ends by itself.
10. A slot whose request was never answered is not given away again for a while: its worker may hang.
11. What a program that was replaced still has counts: as load, and for drains.
12. The listening sockets outlive the program: the daemon holds copies, which the next one inherits, and so
    does a process that does nothing else, for when the daemon dies as well. A program that is killed fails
    the requests in its hands and no other; one of another version finishes what it has while its successor
    serves. With daemon and program gone the addresses stay open for a minute, no longer.

The modules, from the inside out. Pure: `head` and `framing` (HTTP/1.1 heads and bodies), `answers`, `meter`
(the books), `table`, `wishes` (what requests say of themselves), `budget`. A request's way: `client` (a
client's connection) > `service` (admission; `intake`, `line`, `overdue`, `tries`) > `worker` (pool and
choice) > `exchange` (one request) > `upstream` (a worker's connection). Where clients meet it: `listener`
(addresses), `serving` (`certificate`, `proxied`), `gate` (whom to believe), `door` (several services at one
address), `crowd` (how many there may be). Around it: `inheritance` (listening sockets handed on), `hangup`,
`alarm`, `reports` (what is told), `recording` (each request, for who wants to know), `access` (the log),
`control` (the socket), `program` (the table in force), `lifetime`, `main`. The daemon's side: `link`,
`channel`, `former` (programs that were replaced), `bridge` (`sockets`, and `stoker.plugin.holding`, the line
to the process that does nothing else), `launch`, `wire`, `plugin`; `protocol` is shared. The program imports
nothing of the daemon and starts in a tenth of a second.

Not spoken: HTTP/2 and gRPC (`protocol: grpc` asks for another router). One process serves all services;
what it costs beside others stands in `docs/router.md`.
"""
