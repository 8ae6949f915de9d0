"""Router for HTTP/2 and gRPC: HAProxy 2.8 or newer, one process for each service.

The daemon is never on the path of a request, and HAProxy is never reloaded. `HaproxyRouter` (`router.py`)
starts a process for each service with a configuration that says what is fixed (`settings`,
`service.cfg`), and from then on changes it by its admin socket: workers are dynamic servers (`servers`),
limits are variables of the process.

-   Holding. HAProxy queues a request only if all servers of a pool are full; without a server it answers
    503. So each pool has one more, `plug`, which takes a single request and is kept full by one that
    never ends (`hold.lua`). With no worker the pool is full, not empty: requests wait in HAProxy's own
    queue, in order, whatever their protocol. A service that is held has `plug` under maintenance, which
    refuses those who wait.
-   Load. Counts are read from `show stat` ten times a second while there are any, and integrated
    (`readings`). How long each request took is logged to a socket of ours (`ear`, `lines`). At rest
    nothing is read: the first request after it makes the process say so (`proc.rest`).
-   Life. A process is found again by its record (`places`, `unit`), with the counters that were told last
    kept in the process itself. Its listening socket is handed to it as one HAProxy hands it to the next
    (`process.hand_over`), so a daemon can have a copy back from it, and give that to the next process or
    to another router. A process that does nothing else holds one more (`keeping`), for when the daemon dies
    as well.
"""
