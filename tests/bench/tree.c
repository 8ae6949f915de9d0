/* tree FIFO TAG [WISH...]: a worker with a tree. Each process writes "TAG PID NANOSECONDS" to the FIFO in one
 * piece, with a letter behind the tag for what it is, and sleeps. Wishes:
 *   tree     a child in its process group (g), one in a session of its own (s), a daemon that has forked twice
 *            (d), and another that has put on an environment of its own as well (w)
 *   stubborn SIGTERM is ignored
 *   die=MS   it exits with 1 after so many milliseconds */
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static void tell(const char *fifo, const char *tag, const char *kind) {
    char line[256];
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    int length = snprintf(line, sizeof line, "%s%s %d %lld\n", tag, kind, (int)getpid(),
                          now.tv_sec * 1000000000LL + now.tv_nsec);
    int file = open(fifo, O_WRONLY | O_NONBLOCK | O_CLOEXEC);
    if (file < 0 || write(file, line, length) != length) _exit(3);
    close(file);
}

static void sleep_for_ever(void) {
    for (;;) pause();
}

static void daemonise(char **argument, int wiped) {
    if (fork()) return;
    setsid();
    if (fork()) _exit(0);
    usleep(100000); /* until the one between has ended */
    if (wiped) {
        char *argv[] = {argument[0], argument[1], argument[2], "wiped", NULL}, *environ[] = {"A=1", NULL};
        execve("/proc/self/exe", argv, environ);
        _exit(4);
    }
    tell(argument[1], argument[2], "/d");
    sleep_for_ever();
}

int main(int count, char **argument) {
    int die = -1;
    if (count < 3) return 2;
    for (int i = 3; i < count; i++) {
        if (!strcmp(argument[i], "wiped")) {
            tell(argument[1], argument[2], "/w");
            sleep_for_ever();
        }
        if (!strcmp(argument[i], "stubborn")) signal(SIGTERM, SIG_IGN);
        if (!strncmp(argument[i], "die=", 4)) die = atoi(argument[i] + 4);
        if (!strcmp(argument[i], "tree")) {
            if (!fork()) { tell(argument[1], argument[2], "/g"); sleep_for_ever(); }
            if (!fork()) { setsid(); tell(argument[1], argument[2], "/s"); sleep_for_ever(); }
            daemonise(argument, 0);
            daemonise(argument, 1);
        }
    }
    tell(argument[1], argument[2], "");
    if (die >= 0) { usleep(die * 1000); return 1; }
    sleep_for_ever();
}
