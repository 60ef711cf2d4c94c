/* Why /proc first: it needs no step of the owner, and works across network namespaces.  It asks that a process may look
 * into another one of the same user (ptrace's right to read).  The socket asks for one network namespace only, and is
 * abstract, so it leaves no file.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "share.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum { PROC_PATH_BYTES = 64 };

/* ---- own card -------------------------------------------------------------------------------------------------- */

/* 0: unknown. */
static uint64_t namespace_of(const char *path)
{
    struct stat status;
    return stat(path, &status) == 0 ? (uint64_t)status.st_ino : 0;
}

/* A process that is not dumpable does not know its own. */
static bool differ(uint64_t mine, uint64_t theirs)
{
    return mine && theirs && mine != theirs;
}

static socklen_t address_of(const char *name, struct sockaddr_un *address)
{
    *address = (struct sockaddr_un){.sun_family = AF_UNIX};
    memcpy(address->sun_path + 1, name, SHARE_SOCKET_BYTES);
    return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + SHARE_SOCKET_BYTES);
}

static int open_socket(char *name)
{
    uint64_t number;
    char text[SHARE_SOCKET_BYTES + 1];
    struct sockaddr_un address;
    int file = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (file < 0)
        return -1;
    if (getrandom(&number, sizeof number, 0) == sizeof number) {
        snprintf(text, sizeof text, "dsm+%016llx", (unsigned long long)number);
        memcpy(name, text, SHARE_SOCKET_BYTES);
        socklen_t bytes = address_of(name, &address);
        if (bind(file, (const struct sockaddr *)&address, bytes) == 0)
            return file;
    }
    close(file);
    return -1;
}

void share_begin(struct share *share, const int *files)
{
    *share = (struct share){.own = {
                                .processes = namespace_of("/proc/self/ns/pid"),
                                .users = namespace_of("/proc/self/ns/user"),
                                .network = namespace_of("/proc/self/ns/net"),
                                .process = (int32_t)getpid(),
                                .user = geteuid(),
                            }};
    for (int i = 0; i < SHARE_FILES; i++) {
        struct stat status = {0};
        fstat(files[i], &status);
        share->own.files[i] = files[i];
        share->own.devices[i] = status.st_dev;
        share->own.numbers[i] = status.st_ino;
    }
    share->socket = open_socket(share->own.socket);
}

void share_end(struct share *share)
{
    if (share->socket >= 0)
        close(share->socket);
    share->socket = -1;
}

/* ---- through /proc --------------------------------------------------------------------------------------------- */

static void close_all(const int *files)
{
    for (int i = 0; i < SHARE_FILES; i++)
        if (files[i] >= 0)
            close(files[i]);
}

static bool is_named(const struct share_card *owner, const int *files)
{
    struct stat status;
    for (int i = 0; i < SHARE_FILES; i++)
        if (fstat(files[i], &status) != 0 || status.st_dev != owner->devices[i] || status.st_ino != owner->numbers[i])
            return false;
    return true;
}

/* 0 or -errno; nothing is left open then. */
static int open_each(const struct share_card *owner, int *files)
{
    int error = 0;
    for (int i = 0; i < SHARE_FILES; i++) {
        char path[PROC_PATH_BYTES];
        snprintf(path, sizeof path, "/proc/%d/fd/%d", (int)owner->process, (int)owner->files[i]);
        files[i] = error ? -1 : open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
        if (files[i] < 0 && !error)
            error = -errno;
    }
    if (!error && !is_named(owner, files))
        error = -ESTALE;
    if (error)
        close_all(files);
    return error;
}

static void explain(const struct share_card *own, const struct share_card *owner, int error, char *why, size_t room)
{
    int process = (int)owner->process;
    bool forbidden = error == -EACCES || error == -EPERM;
    if (differ(own->processes, owner->processes))
        snprintf(why, room, "it is in another pid namespace, where /proc/%d is another process", process);
    else if (forbidden && differ(own->users, owner->users))
        snprintf(why, room, "process %d is in another user namespace", process);
    else if (forbidden && own->user != owner->user)
        snprintf(why, room, "process %d belongs to user %u, and this one to user %u", process, owner->user, own->user);
    else if (forbidden)
        snprintf(why, room,
                 "/proc/%d/fd may not be read: that process is not dumpable (prctl, setuid, setcap), or a "
                 "security module forbids it",
                 process);
    else if (error == -ENOENT)
        snprintf(why, room, "/proc/%d is not there: is /proc mounted, and without hidepid?", process);
    else if (error == -ESTALE)
        snprintf(why, room, "/proc/%d/fd names other files", process);
    else
        snprintf(why, room, "opening /proc/%d/fd failed: %s", process, strerror(-error));
}

int share_open_files(const struct share *share, const struct share_card *owner, int *files, char *why, size_t room)
{
    bool visible = !differ(share->own.processes, owner->processes);
    int error = visible ? open_each(owner, files) : -ESRCH;
    if (error)
        explain(&share->own, owner, error, why, room);
    return error;
}

/* ---- over a socket --------------------------------------------------------------------------------------------- */

union rights {
    struct cmsghdr head;
    char bytes[CMSG_SPACE(SHARE_FILES * sizeof(int))];
};

int share_send(const struct share *share, const struct share_card *receiver)
{
    struct sockaddr_un address;
    union rights rights = {.head = {.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS}};
    char byte = 0;
    struct iovec body = {.iov_base = &byte, .iov_len = 1};
    struct msghdr message = {.msg_name = &address,
                             .msg_namelen = address_of(receiver->socket, &address),
                             .msg_iov = &body,
                             .msg_iovlen = 1,
                             .msg_control = &rights,
                             .msg_controllen = sizeof rights};
    rights.head.cmsg_len = CMSG_LEN(SHARE_FILES * sizeof(int));
    memcpy(CMSG_DATA(&rights.head), share->own.files, SHARE_FILES * sizeof(int));
    if (share->socket < 0)
        return -ENOTSOCK;
    return sendmsg(share->socket, &message, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 ? -errno : 0;
}

/* Of any process: strangers may send what they like.  0 or -errno. */
static int receive_each(int socket, int wait_ms, int *files)
{
    union rights rights;
    char byte;
    struct pollfd ready = {.fd = socket, .events = POLLIN};
    struct iovec body = {.iov_base = &byte, .iov_len = 1};
    struct msghdr message = {
        .msg_iov = &body, .msg_iovlen = 1, .msg_control = &rights, .msg_controllen = sizeof rights};
    if (socket < 0)
        return -ENOTSOCK;
    if (poll(&ready, 1, wait_ms) <= 0)
        return -ETIMEDOUT;
    if (recvmsg(socket, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT) < 0)
        return -errno;
    const struct cmsghdr *head = CMSG_FIRSTHDR(&message);
    if (!head || head->cmsg_level != SOL_SOCKET || head->cmsg_type != SCM_RIGHTS)
        return -EBADMSG;
    size_t count = (head->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < SHARE_FILES; i++)
        files[i] = -1;
    memcpy(files, CMSG_DATA(head), (count < SHARE_FILES ? count : SHARE_FILES) * sizeof(int));
    return 0;
}

int share_receive(const struct share *share, const struct share_card *owner, int wait_ms, int *files, char *why,
                  size_t room)
{
    int error;
    while ((error = receive_each(share->socket, wait_ms, files)) == 0 || error == -EBADMSG) {
        if (error)
            continue;
        if (is_named(owner, files))
            return 0;
        close_all(files);
    }
    if (error == -ENOTSOCK)
        snprintf(why, room, "this process may not have an abstract unix socket");
    else if (differ(share->own.network, owner->network))
        snprintf(why, room, "process %d is in another network namespace, which no abstract socket reaches",
                 (int)owner->process);
    else if (error == -ETIMEDOUT)
        snprintf(why, room, "process %d has sent no files within %d ms", (int)owner->process, wait_ms);
    else
        snprintf(why, room, "receiving files failed: %s", strerror(-error));
    return error;
}
