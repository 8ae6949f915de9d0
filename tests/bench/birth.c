/* birth FIFO TAG: a worker that costs nothing. It writes "TAG PID NANOSECONDS" (CLOCK_MONOTONIC) to the
 * FIFO, in one piece, and sleeps. The time is its own, so whoever reads the FIFO may be late. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

int main(int count, char **argument) {
    char line[256];
    struct timespec now;
    if (count < 3) return 2;
    clock_gettime(CLOCK_MONOTONIC, &now);
    int length = snprintf(line, sizeof line, "%s %d %lld\n", argument[2], (int)getpid(),
                          now.tv_sec * 1000000000LL + now.tv_nsec);
    int fifo = open(argument[1], O_WRONLY | O_NONBLOCK | O_CLOEXEC);
    if (fifo < 0 || write(fifo, line, length) != length) return 3;
    close(fifo);
    for (;;) pause();
}
