/* A worker that costs nearly nothing: answers every request (no bodies) with 200 and a fixed body.
 *
 *     cc -O2 -o backend backend.c && ./backend PORT [BYTES [RECEIPTS]]      binds 127.0.0.1 only
 *
 * RECEIPTS: a file to which all that it reads is appended at once, so that it outlives the worker.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MAX_BODY = 1 << 16, EVENTS = 256 };

struct client {
    int fd;
    int matched; /* how much of the empty line that ends a head was seen: 0 to 3 */
};

static char answer[MAX_BODY + 256];
static size_t answer_size;
static int receipts = -1;

static void make_answer(size_t body) {
    int head = snprintf(answer, sizeof answer,
                        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %zu\r\n\r\n", body);
    memset(answer + head, 'x', body);
    answer_size = (size_t)head + body;
}

static int listen_at(int port) {
    int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((unsigned short)port)};
    inet_pton(AF_INET, "127.0.0.1", &address.sin_addr);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, (struct sockaddr *)&address, sizeof address) || listen(fd, 4096)) {
        perror("backend: cannot listen");
        exit(1);
    }
    return fd;
}

static void accept_all(int listener, int epoll) {
    int fd, one = 1;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        struct client *client = calloc(1, sizeof *client);
        struct epoll_event event = {.events = EPOLLIN | EPOLLRDHUP, .data.ptr = client};
        client->fd = fd;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
    }
}

/* The number of heads that end in these bytes. */
static int heads_in(struct client *client, const char *data, ssize_t size) {
    int heads = 0, matched = client->matched;
    for (ssize_t i = 0; i < size; i++) {
        if (data[i] == "\r\n\r\n"[matched])
            matched++;
        else
            matched = data[i] == '\r';
        if (matched == 4) {
            heads++;
            matched = 0;
        }
    }
    client->matched = matched;
    return heads;
}

/* Read what is there and answer it; 0 when the client is gone. */
static int serve(struct client *client) {
    static char data[1 << 16];
    ssize_t size = read(client->fd, data, sizeof data);
    if (size < 0 && errno == EAGAIN)
        return 1;
    if (size <= 0)
        return 0;
    if (receipts >= 0 && write(receipts, data, (size_t)size) != size)
        perror("backend: receipts");
    for (int heads = heads_in(client, data, size); heads > 0; heads--)
        if (write(client->fd, answer, answer_size) != (ssize_t)answer_size)
            return 0; /* a load generator that does not read is broken */
    return 1;
}

int main(int count, char **arguments) {
    if (count < 2) {
        fprintf(stderr, "usage: backend PORT [BYTES [RECEIPTS]]\n");
        return 2;
    }
    size_t body = count > 2 ? (size_t)atol(arguments[2]) : 64;
    if (count > 3)
        receipts = open(arguments[3], O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    make_answer(body < MAX_BODY ? body : MAX_BODY);
    signal(SIGPIPE, SIG_IGN);
    int listener = listen_at(atoi(arguments[1])), epoll = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event events[EVENTS], event = {.events = EPOLLIN, .data.ptr = NULL};
    epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event);
    for (;;) {
        int ready = epoll_wait(epoll, events, EVENTS, -1);
        for (int i = 0; i < ready; i++) {
            struct client *client = events[i].data.ptr;
            if (client == NULL)
                accept_all(listener, epoll);
            else if (!serve(client)) {
                close(client->fd);
                free(client);
            }
        }
    }
}
