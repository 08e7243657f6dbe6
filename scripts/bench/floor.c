/* What peers.py needs in C: the programs that are supervised, the physical floor, a load generator.
 *
 *     program STAMPS         writes "NANOSECONDS PID" to STAMPS, a line to stdout, and one more for each SIGUSR1
 *     fork STAMPS            the same, and leaves a process behind that has a session of its own
 *     lines STAMPS BYTES RATE   stamps, writes 100-byte lines in 4 KiB writes (RATE bytes a second; 0: at once), stamps, sleeps
 *     check                  reads such lines from stdin, a time in front of each or not: "LINES GAPS LAST"
 *     spawn COUNT STAMPS     milliseconds until COUNT programs have stamped
 *     restart COUNT STAMPS   COUNT times: nanoseconds from kill over waitpid and posix_spawn to the next stamp
 *     hello BYTES            answers everything with as many bytes, a thread for each connection; prints its port
 *     load PORT CONNECTIONS MILLISECONDS KEEP   sends the request on stdin: "ANSWERED BAD P50 P99" (microseconds)
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;
static char self[4096];

static long long now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static void stamp(const char *path) {
    char line[64];
    int length = snprintf(line, sizeof line, "%lld %d\n", now(), getpid());
    int file = open(path, O_WRONLY | O_APPEND | O_CLOEXEC);
    if (file < 0 || write(file, line, length) != length)
        fail(path);
    close(file);
}

static void pong(int signal) {
    char line[64];
    (void)signal;
    if (write(1, line, snprintf(line, sizeof line, "pong %d\n", getpid())) < 0)
        _exit(3);
}

static int program(const char *path) {
    signal(SIGUSR1, pong);
    if (write(1, "ready\n", 6) != 6)
        return 3;
    stamp(path);
    for (;;)
        pause();
}

static int leave(const char *path) {
    if (fork() == 0) {
        setsid();
        if (fork() == 0)
            return program(path);
        _exit(0);
    }
    wait(NULL);
    return program(path);
}

static int lines(const char *path, long long bytes, long long rate) {
    static char block[4096];
    char line[101];
    long long done = 0, begin;
    stamp(path);
    begin = now();
    memset(line, 'x', sizeof line);
    line[11] = ' ';
    line[99] = '\n';
    while (done < bytes) {
        int size = rate && rate < 4096 ? 100 : 4096;
        for (int at = 0; at < size; at++) {
            long long place = (done + at) % 100;
            if (place == 0 || at == 0) {
                char serial[32];
                snprintf(serial, sizeof serial, "%011lld", (done + at) / 100);
                memcpy(line, serial, 11);
            }
            block[at] = line[place];
        }
        if (bytes - done < size)
            size = bytes - done;
        for (int at = 0; at < size;) {
            ssize_t wrote = write(1, block + at, size - at);
            if (wrote < 0)
                fail("write");
            at += wrote;
        }
        done += size;
        if (rate) {
            long long wait = begin + (long long)((double)done / rate * 1e9) - now();
            struct timespec t = {wait / 1000000000, wait % 1000000000};
            if (wait > 0)
                nanosleep(&t, NULL);
        }
    }
    stamp(path);
    while (pause() < 0)
        continue;
    return 0;
}

static int check(void) {
    char *line = NULL;
    size_t room = 0;
    ssize_t length;
    long long found = 0, gaps = 0, last = -1;
    while ((length = getline(&line, &room, stdin)) > 0) {
        char *end;
        char *own = line + length - 100;
        long long serial = length < 100 ? 0 : strtoll(own, &end, 10);
        if (length < 100 || end != own + 11)
            continue;
        if (last >= 0 && serial != last + 1)
            gaps++;
        last = serial;
        found++;
    }
    printf("%lld %lld %lld\n", found, gaps, last);
    return 0;
}

static pid_t start(char *path) {
    char *arguments[] = {self, "program", path, NULL};
    pid_t pid;
    if (posix_spawn(&pid, self, NULL, NULL, arguments, environ) != 0)
        fail("posix_spawn");
    return pid;
}

/* Waits until the file of stamps is as long as that many stamps make it, and returns when the last was made. */
static long long stamped(const char *path, int count) {
    for (;;) {
        FILE *file = fopen(path, "r");
        long long at = 0, latest = 0;
        int pid, found = 0;
        if (!file)
            fail(path);
        while (fscanf(file, "%lld %d\n", &at, &pid) == 2) {
            latest = at > latest ? at : latest;
            found++;
        }
        fclose(file);
        if (found >= count)
            return latest;
        usleep(200);
    }
}

static int spawn(int count, char *path) {
    pid_t *pids = calloc(count, sizeof *pids);
    long long begin = now();
    for (int i = 0; i < count; i++)
        pids[i] = start(path);
    printf("%.3f\n", (stamped(path, count) - begin) / 1e6);
    for (int i = 0; i < count; i++) {
        kill(pids[i], SIGKILL);
        waitpid(pids[i], NULL, 0);
    }
    return 0;
}

static int restart(int count, char *path) {
    pid_t pid = start(path);
    stamped(path, 1);
    for (int i = 0; i < count; i++) {
        long long begin = now();
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
        pid = start(path);
        printf("%lld\n", stamped(path, i + 2) - begin);
    }
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    return 0;
}

static char *answer;
static size_t answer_length;

static void *serve(void *given) {
    int stream = (int)(long)given, one = 1;
    char buffer[8192];
    size_t have = 0;
    ssize_t got;
    setsockopt(stream, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    while ((got = read(stream, buffer + have, sizeof buffer - 1 - have)) > 0) {
        have += got;
        buffer[have] = 0;
        if (strstr(buffer, "\r\n\r\n")) {
            int closes = strstr(buffer, "Connection: close") != NULL;
            if (write(stream, answer, answer_length) < 0 || closes)
                break;
            have = 0;
        } else if (have == sizeof buffer - 1)
            break;
    }
    close(stream);
    return NULL;
}

__attribute__((noreturn)) static void hello(int bytes) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    char head[128];
    int head_length = snprintf(head, sizeof head, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", bytes);
    answer_length = head_length + bytes;
    answer = malloc(answer_length);
    memset(answer, 'x', answer_length);
    memcpy(answer, head, head_length);
    signal(SIGPIPE, SIG_IGN);
    if (bind(listener, (void *)&address, length) || listen(listener, 1024))
        fail("listen");
    getsockname(listener, (void *)&address, &length);
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    for (;;) {
        pthread_t thread;
        int stream = accept(listener, NULL, NULL);
        if (stream >= 0 && pthread_create(&thread, NULL, serve, (void *)(long)stream) == 0)
            pthread_detach(thread);
    }
}

#define MOST 2000000
static char request[65536];
static size_t request_length;
static int port, keeps;
static long long until;

struct client {
    unsigned *times;
    int answered, bad;
};

static int dial(void) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct timeval limit = {10, 0};
    int stream = socket(AF_INET, SOCK_STREAM, 0), one = 1;
    setsockopt(stream, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    setsockopt(stream, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    if (connect(stream, (void *)&address, sizeof address)) {
        close(stream);
        return -1;
    }
    return stream;
}

/* One answer; whether it was 200 and whole. `open` becomes 0 where the server has closed or will. */
static int receive(int stream, int *open) {
    char buffer[65536];
    size_t have = 0, head = 0, body = 0;
    int sized = 0;
    for (;;) {
        ssize_t got = read(stream, buffer + have, sizeof buffer - 1 - have);
        if (got <= 0) {
            *open = 0;
            return got == 0 && head && !sized && !strncmp(buffer + 8, " 200", 4);
        }
        have += got;
        buffer[have] = 0;
        if (!head) {
            char *end = strstr(buffer, "\r\n\r\n"), *field;
            if (!end)
                continue;
            head = end + 4 - buffer;
            if ((field = strcasestr(buffer, "\r\ncontent-length:")) && field < end) {
                body = strtoul(field + 17, NULL, 10);
                sized = 1;
            }
            if ((field = strcasestr(buffer, "\r\nconnection: close")) && field < end)
                *open = 0;
        }
        if (sized && have >= head + body)
            return !strncmp(buffer + 8, " 200", 4);
        if (have == sizeof buffer - 1)
            /* More than we keep: the rest is read over the end of the head, which is no longer needed. */
            have -= 32768, body -= body > 32768 ? 32768 : body;
    }
}

static void *client(void *given) {
    struct client *it = given;
    int stream = -1;
    while (now() < until && it->answered < MOST) {
        long long begin = now();
        int open = keeps;
        if (stream < 0 && (stream = dial()) < 0) {
            it->bad++;
            usleep(1000);
            continue;
        }
        if (write(stream, request, request_length) == (ssize_t)request_length && receive(stream, &open))
            it->times[it->answered++] = (now() - begin) / 1000;
        else
            it->bad++, open = 0;
        if (!open) {
            close(stream);
            stream = -1;
        }
    }
    if (stream >= 0)
        close(stream);
    return NULL;
}

static int order(const void *a, const void *b) {
    unsigned x = *(const unsigned *)a, y = *(const unsigned *)b;
    return (x > y) - (x < y);
}

static int load(int connections, int milliseconds) {
    struct client clients[64] = {0};
    pthread_t threads[64];
    unsigned *all;
    int answered = 0, bad = 0;
    if (connections > 64)
        connections = 64;
    request_length = fread(request, 1, sizeof request, stdin);
    signal(SIGPIPE, SIG_IGN);
    until = now() + milliseconds * 1000000LL;
    for (int i = 0; i < connections; i++) {
        clients[i].times = malloc(MOST * sizeof *all);
        pthread_create(&threads[i], NULL, client, &clients[i]);
    }
    all = malloc((size_t)connections * MOST * sizeof *all);
    for (int i = 0; i < connections; i++) {
        pthread_join(threads[i], NULL);
        memcpy(all + answered, clients[i].times, clients[i].answered * sizeof *all);
        answered += clients[i].answered;
        bad += clients[i].bad;
    }
    qsort(all, answered, sizeof *all, order);
    printf("%d %d %u %u\n", answered, bad, answered ? all[answered / 2] : 0, answered ? all[(long long)answered * 99 / 100] : 0);
    return 0;
}

int main(int count, char **given) {
    const char *what = count > 1 ? given[1] : "";
    if (readlink("/proc/self/exe", self, sizeof self - 1) < 0)
        fail("/proc/self/exe");
    if (!strcmp(what, "program") && count == 3)
        return program(given[2]);
    if (!strcmp(what, "fork") && count == 3)
        return leave(given[2]);
    if (!strcmp(what, "lines") && count == 5)
        return lines(given[2], atoll(given[3]), atoll(given[4]));
    if (!strcmp(what, "check"))
        return check();
    if (!strcmp(what, "spawn") && count == 4)
        return spawn(atoi(given[2]), given[3]);
    if (!strcmp(what, "restart") && count == 4)
        return restart(atoi(given[2]), given[3]);
    if (!strcmp(what, "hello") && count == 3)
        hello(atoi(given[2]));
    if (!strcmp(what, "load") && count == 6) {
        port = atoi(given[2]);
        keeps = atoi(given[5]);
        return load(atoi(given[3]), atoi(given[4]));
    }
    fprintf(stderr, "see the head of floor.c\n");
    return 2;
}
